import Devices
import Host
import Memory

/// The front end's memory as a message describes it: up to eight regions with a file each.
struct MemoryTable: Sendable {
  /// The most regions of a table, and of open files with a message.
  static let mostRegions = 8
  private static let headerSize = 8
  private static let entrySize = 32

  struct Entry: Equatable, Sendable {
    /// The guest's address.
    var start: UInt64
    /// In bytes.
    var count: UInt64
    /// The front end's own address, by which it says where rings are.
    var address: UInt64
    /// Where the region starts in its file.
    var offset: UInt64
  }

  /// The memory that was mapped.
  let memory: GuestMemory
  private let entries: [Entry]

  /// What a message has.
  static func entries(of message: VhostUserMessage) throws(VhostUserError) -> [Entry] {
    guard message.payload.count >= headerSize else {
      throw .malformed("a memory table of \(message.payload.count) bytes")
    }
    let count: UInt32 = message.number(at: 0)
    guard (1...UInt32(mostRegions)).contains(count) else {
      throw .malformed("a memory table of \(count) regions")
    }
    try message.expect(bytes: headerSize + Int(count) * entrySize)
    try message.expect(files: Int(count))
    return (0..<Int(count)).map { index in
      let start = headerSize + index * entrySize
      return Entry(
        start: message.number(at: start), count: message.number(at: start + 8),
        address: message.number(at: start + 16), offset: message.number(at: start + 24))
    }
  }

  /// The payload for `entries`.
  static func payload(_ entries: [Entry]) -> [UInt8] {
    entries.reduce(into: .numbers(UInt32(entries.count), UInt32(0))) {
      $0 += .numbers($1.start, $1.count, $1.address, $1.offset)
    }
  }

  /// Maps the regions of `message`.
  init(_ message: VhostUserMessage) throws(VhostUserError) {
    entries = try Self.entries(of: message)
    var regions: [GuestMemory.Region] = []
    for (entry, shared) in zip(entries, message.files) {
      do throws(Errno) {
        let mapping = try Mapping(shared: shared.file, offset: entry.offset, count: entry.count)
        regions.append(.init(start: GuestAddress(entry.start), kind: .ram, mapping: mapping))
      } catch {
        guard error == .notPermitted else {
          throw .malformed("a region of memory can't be mapped: \(error)")
        }
        throw .unsupported(
          "the other side's memory isn't sealed against shrinking; QEMU's memory-backend-memfd is")
      }
    }
    guard let memory = GuestMemory(regions: regions) else {
      throw .malformed("regions of memory overlap")
    }
    self.memory = memory
  }

  /// The guest's address of what the front end has at `address`; nil if that is in no region.
  func guestAddress(of address: UInt64) -> UInt64? {
    for entry in entries where address >= entry.address {
      let offset = address - entry.address
      if offset < entry.count { return entry.start &+ offset }
    }
    return nil
  }

  /// `ring`, of the front end's addresses, in those of the guest.
  func guestAddresses(of ring: VirtQueue.Addresses) -> VirtQueue.Addresses? {
    guard let descriptors = guestAddress(of: ring.descriptors),
      let available = guestAddress(of: ring.available), let used = guestAddress(of: ring.used)
    else { return nil }
    return VirtQueue.Addresses(descriptors: descriptors, available: available, used: used)
  }
}
