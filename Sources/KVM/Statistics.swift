import CKVM
import Host

/// The kernel's own counters of a VM or a VCPU. Corresponds to the file of `KVM_GET_STATS_FD`.
///
/// Reading them disturbs no VCPU.
package final class Statistics: Sendable {
  private let descriptor: FileDescriptor
  // See VCPU.
  private let vm: VM
  private let dataOffset: Int
  /// All counters, in the kernel's order.
  package let counters: [Counter]

  /// One counter: what it is called and where its values are.
  package struct Counter: Sendable {
    /// The kernel's name, such as `halt_exits`.
    package let name: String
    /// How many values it has: 1, or the buckets of a histogram.
    package let count: Int
    let offset: Int
  }

  // The kernel's tables are far smaller; a file that says otherwise isn't read further.
  private static let largestTable = 4096

  init(_ number: Int32, of vm: VM) throws(KVMError) {
    let descriptor = FileDescriptor(owning: number)
    self.vm = vm
    let header = try Self.read(descriptor, 24, at: 0)
    let nameSize = Int(header.integer(4, UInt32.self))
    let descriptionCount = Int(header.integer(8, UInt32.self))
    let descriptionOffset = Int(header.integer(16, UInt32.self))
    dataOffset = Int(header.integer(20, UInt32.self))
    guard descriptionCount <= Self.largestTable, nameSize <= Self.largestTable else {
      throw KVMError("KVM_GET_STATS_FD", .invalidArgument)
    }
    // struct kvm_stats_desc: flags, exponent, size, offset, bucket_size, then the name.
    let stride = 16 + nameSize
    let table = try Self.read(descriptor, descriptionCount * stride, at: descriptionOffset)
    counters = (0..<descriptionCount).map { index in
      let start = index * stride
      let name = table[(start + 16)..<(start + stride)].prefix { $0 != 0 }
      return Counter(
        name: String(decoding: name, as: UTF8.self),
        count: Int(table.integer(start + 6, UInt16.self)),
        offset: Int(table.integer(start + 8, UInt32.self)))
    }
    self.descriptor = descriptor
  }

  /// The counter called `name`, if this kernel has it.
  package func counter(_ name: String) -> Counter? { counters.first { $0.name == name } }

  /// The first value of `counter` now.
  package func value(of counter: Counter) throws(KVMError) -> UInt64 {
    try Self.read(descriptor, 8, at: dataOffset + counter.offset).integer(0, UInt64.self)
  }

  /// The values of all counters with a single value now, in the order of `counters`.
  package func values() throws(KVMError) -> [(name: String, value: UInt64)] {
    let end = counters.map { $0.offset + 8 * $0.count }.max() ?? 0
    guard end <= Self.largestTable * 64 else {
      throw KVMError("KVM_GET_STATS_FD", .invalidArgument)
    }
    let data = try Self.read(descriptor, end, at: dataOffset)
    return counters.filter { $0.count == 1 }
      .map { ($0.name, data.integer($0.offset, UInt64.self)) }
  }

  private static func read(
    _ descriptor: borrowing FileDescriptor, _ count: Int, at offset: Int
  ) throws(KVMError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    do throws(Errno) {
      guard try descriptor.read(into: &span, at: offset) == count else {
        throw .invalidArgument
      }
    } catch {
      throw KVMError("read of KVM_GET_STATS_FD", error)
    }
    return bytes
  }
}

extension [UInt8] {
  /// The little-endian integer whose first byte is at `offset`.
  fileprivate func integer<T: FixedWidthInteger>(_ offset: Int, _ type: T.Type) -> T {
    (0..<MemoryLayout<T>.size).reduce(0) {
      $0 | T(truncatingIfNeeded: self[offset + $1]) << ($1 * 8)
    }
  }
}
