import Host

/// A part of a machine that has registers: what a reset makes new, and what a save takes along.
///
/// All three are called while the machine stands still: no VCPU runs, no worker works, nothing is in
/// flight. Handles (lines, sockets, files, threads) stay; registers are a value apart from them.
package protocol Stateful: AnyObject, Sendable {
  /// Makes the registers as those of a new device, but for what a PC's battery keeps, and drives its
  /// lines anew.
  func reset()

  /// Writes all that the guest could see, now or later.
  func save(to state: inout StateWriter)

  /// Takes what `save` wrote, checks it as it would check a guest, and drives the lines anew. After an
  /// error the device may be half old, half new: the machine isn't to run.
  func restore(from state: StateReader) throws(StateError)
}

/// A part of a machine that works on threads of its own, or waits for others that do.
package protocol Pausable: AnyObject, Sendable {
  /// Begins nothing new from now on, and calls `still` once, from any thread and perhaps before this
  /// returns, when nothing is in flight any more. Nobody waits in here: a disk may take its time.
  func pause(_ still: @escaping @Sendable () -> Void)

  /// Goes on with what waits. Called once for each pause, after it or instead of its end.
  func resume()
}

extension Worker: Pausable {}

/// Why a state can't be taken back.
package enum StateError: Error, Equatable, Sendable {
  /// The bytes aren't fields, from this offset on.
  case malformed(offset: Int)
  /// There is no such field.
  case missing(String)
  /// The field has another size than it should have.
  case size(String, bytes: Int)
  /// The field's value is one that no device can have.
  case impossible(String)
  /// The part's state is of a version that this kvmlite doesn't know.
  case version(String, UInt64)
}

extension StateError: CustomStringConvertible {
  /// What is wrong with which field.
  package var description: String {
    switch self {
    case .malformed(let offset): "the state is damaged at byte \(offset)"
    case .missing(let name): "the state lacks \(name)"
    case .size(let name, let bytes): "\(name) has \(bytes) bytes, which is no size for it"
    case .impossible(let name): "\(name) has a value that can't be"
    case .version(let name, let version):
      "\(name) is of version \(version), which this kvmlite doesn't know"
    }
  }
}

/// Writes a part's registers as named fields.
///
/// A field is the length of its name (1 byte), the name (ASCII), the length of its value (4 bytes) and
/// the value; numbers are little-endian. A group is a field whose value is fields.
package struct StateWriter: Sendable {
  /// What was written so far.
  package private(set) var bytes: [UInt8] = []

  /// Writes nothing yet.
  package init() {}

  /// Writes a number in as many bytes as its type has.
  package mutating func write(_ name: StaticString, _ value: some FixedWidthInteger & Sendable) {
    let count = value.bitWidth / 8
    begin(name.description, count)
    for index in 0..<count {
      bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index)))
    }
  }

  /// Writes a truth as one byte, 0 or 1.
  package mutating func write(_ name: StaticString, _ value: Bool) {
    write(name, value ? 1 as UInt8 : 0)
  }

  /// Writes bytes as they are.
  package mutating func write(_ name: StaticString, _ value: [UInt8]) {
    begin(name.description, value.count)
    bytes += value
  }

  /// Writes what `body` writes as a group called `name`, such as `queue3`: at most 255 bytes of ASCII.
  package mutating func group(_ name: String, _ body: (inout StateWriter) -> Void) {
    var inner = StateWriter()
    body(&inner)
    begin(name, inner.bytes.count)
    bytes += inner.bytes
  }

  private mutating func begin(_ name: String, _ count: Int) {
    let name = name.utf8.prefix(255)
    bytes.append(UInt8(name.count))
    bytes += name
    for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: count >> shift)) }
  }
}

/// Reads what a `StateWriter` wrote, from bytes that may be anybody's: nothing that is in them traps.
///
/// Fields are found by name, in any order; those that nobody asks for are left over.
package struct StateReader: Sendable {
  private let bytes: [UInt8]
  private let fields: [String: Range<Int>]

  /// Finds the fields of `bytes`.
  package init(_ bytes: [UInt8]) throws(StateError) {
    try self.init(bytes, bytes.indices)
  }

  private init(_ bytes: [UInt8], _ range: Range<Int>) throws(StateError) {
    var fields: [String: Range<Int>] = [:]
    var offset = range.lowerBound
    while offset < range.upperBound {
      let start = offset
      let nameEnd = offset + 1 + Int(bytes[offset])
      guard nameEnd + 4 <= range.upperBound else { throw .malformed(offset: start) }
      let name = String(decoding: bytes[offset + 1..<nameEnd], as: UTF8.self)
      var count = 0
      for index in 0..<4 { count |= Int(bytes[nameEnd + index]) << (8 * index) }
      offset = nameEnd + 4
      guard count <= range.upperBound - offset, fields[name] == nil else {
        throw .malformed(offset: start)
      }
      fields[name] = offset..<offset + count
      offset += count
    }
    self.bytes = bytes
    self.fields = fields
  }

  /// Whether there is a field or group of that name.
  package func has(_ name: String) -> Bool { fields[name] != nil }

  /// The number `name`, which must have as many bytes as its type.
  package func read<T: FixedWidthInteger>(
    _ name: StaticString, as type: T.Type = T.self
  ) throws(StateError) -> T {
    let range = try find(name.description)
    guard range.count == T.bitWidth / 8 else {
      throw .size(name.description, bytes: range.count)
    }
    var value: T = 0
    for index in 0..<range.count {
      value |= T(truncatingIfNeeded: bytes[range.lowerBound + index]) << (8 * index)
    }
    return value
  }

  /// The same, which must be in `possible`.
  package func read<T: FixedWidthInteger>(
    _ name: StaticString, in possible: ClosedRange<T>
  ) throws(StateError) -> T {
    let value = try read(name, as: T.self)
    guard possible.contains(value) else { throw .impossible(name.description) }
    return value
  }

  /// The same, in which no bits but `possible` may be set.
  package func read<T: FixedWidthInteger>(
    _ name: StaticString, bits possible: T
  ) throws(StateError) -> T {
    let value = try read(name, as: T.self)
    guard value & ~possible == 0 else { throw .impossible(name.description) }
    return value
  }

  /// The truth `name`.
  package func readFlag(_ name: StaticString) throws(StateError) -> Bool {
    try read(name, in: 0...1 as ClosedRange<UInt8>) == 1
  }

  /// The bytes `name`: so many, unless `count` is nil, and never more than `limit`.
  package func readBytes(
    _ name: StaticString, count: Int? = nil, limit: Int = .max
  ) throws(StateError) -> [UInt8] {
    let range = try find(name.description)
    guard range.count == count ?? range.count, range.count <= limit else {
      throw .size(name.description, bytes: range.count)
    }
    return Array(bytes[range])
  }

  /// The group `name`.
  package func group(_ name: String) throws(StateError) -> StateReader {
    try StateReader(bytes, find(name))
  }

  private func find(_ name: String) throws(StateError) -> Range<Int> {
    guard let range = fields[name] else { throw .missing(name) }
    return range
  }
}
