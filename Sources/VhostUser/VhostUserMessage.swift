import Host

/// A message of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst): a header of three numbers
/// and a payload, and the open files that come with it.
struct VhostUserMessage: Sendable {
  /// What is asked for. Numbers are the protocol's.
  enum Request: UInt32 {
    case getFeatures = 1
    case setFeatures = 2
    case setOwner = 3
    case resetOwner = 4
    case setMemoryTable = 5
    case setRingSize = 8
    case setRingAddress = 9
    case setRingBase = 10
    case getRingBase = 11
    case setRingKick = 12
    case setRingCall = 13
    case setRingError = 14
    case getProtocolFeatures = 15
    case setProtocolFeatures = 16
    case getQueueCount = 17
    case setRingEnable = 18
    case getConfiguration = 24
    case setConfiguration = 25
  }

  /// The header's flags.
  struct Flags: OptionSet {
    let rawValue: UInt32
    /// The version that there is, in the lowest two bits.
    static let version = Flags(rawValue: 1)
    static let versionMask = Flags(rawValue: 3)
    static let reply = Flags(rawValue: 4)
    static let needsReply = Flags(rawValue: 8)
  }

  static let headerSize = 12
  /// No message that is known here comes near this.
  static let mostPayload = 1024
  /// The most bytes of a configuration space that go at a time.
  static let mostConfiguration = 256
  /// A configuration message's offset, size and flags.
  static let configurationHeader = 12

  var code: UInt32
  var flags: Flags
  var payload: [UInt8] = []
  var files: [SharedDescriptor] = []

  /// What it asks for, if that is known.
  var request: Request? { Request(rawValue: code) }

  init(_ request: Request, _ payload: [UInt8] = [], files: [SharedDescriptor] = []) {
    code = request.rawValue
    flags = .version
    self.payload = payload
    self.files = files
  }

  /// A message of which the header has come: code, flags and the payload's length.
  init(header: Span<UInt8>) throws(VhostUserError) {
    code = header.number(at: 0)
    flags = Flags(rawValue: header.number(at: 4))
    guard flags.intersection(.versionMask) == .version else {
      throw .malformed("a message of an unknown version")
    }
    let count: UInt32 = header.number(at: 8)
    guard count <= Self.mostPayload else {
      throw .malformed("a message of \(count) bytes")
    }
    payload = [UInt8](repeating: 0, count: Int(count))
  }

  /// The message as it is sent.
  var bytes: [UInt8] {
    .numbers(code, flags.rawValue, UInt32(payload.count)) + payload
  }

  /// A name for messages of our own.
  var name: String { request.map { "\($0)" } ?? "request \(code)" }

  /// The little-endian number at `offset` of the payload, which has it.
  func number<T: FixedWidthInteger & UnsignedInteger>(at offset: Int) -> T {
    payload.span.number(at: offset)
  }

  /// Refuses a payload of any other length.
  func expect(bytes count: Int) throws(VhostUserError) {
    guard payload.count == count else {
      throw .malformed("\(name) with \(payload.count) bytes, not \(count)")
    }
  }

  /// Refuses any other number of open files.
  func expect(files count: Int) throws(VhostUserError) {
    guard files.count == count else {
      throw .malformed("\(name) with \(files.count) open files, not \(count)")
    }
  }
}

/// Bits by which both sides agree on parts of the protocol.
struct ProtocolFeatures: OptionSet, Sendable {
  let rawValue: UInt64
  /// The back end says how many queues it has.
  static let queueCount = ProtocolFeatures(rawValue: 1 << 0)
  /// Requests without an answer are acknowledged where the sender wants it.
  static let acknowledge = ProtocolFeatures(rawValue: 1 << 3)
  /// The back end has the configuration space.
  static let configuration = ProtocolFeatures(rawValue: 1 << 9)
  /// All that is known here.
  static let known: ProtocolFeatures = [.queueCount, .acknowledge, .configuration]
}

/// Why a vhost-user connection came to an end.
package enum VhostUserError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The other side closed it.
  case closed
  /// This side is about to end.
  case ended
  /// The other side took the connection and then said nothing.
  case silent
  /// A system call failed.
  case host(Errno)
  /// The other side broke the protocol; the text says how.
  case malformed(String)
  /// The other side can't do what is needed; the text says what.
  case unsupported(String)

  /// Says what happened.
  package var description: String {
    switch self {
    case .closed: "the other side closed the connection"
    case .ended: "it was ended"
    case .silent: "the other side answers nothing: is it busy with another one?"
    case .host(let errno): "\(errno)"
    case .malformed(let what): "the other side broke the protocol: \(what)"
    case .unsupported(let what): what
    }
  }
}

extension VhostUserError {
  /// What a socket's error means: a side that ended with messages unread resets the connection.
  init(_ errno: Errno) {
    self = errno == .brokenPipe || errno == .connectionReset ? .closed : .host(errno)
  }
}

extension Span<UInt8> {
  /// The little-endian number at `offset`, which is all there.
  func number<T: FixedWidthInteger & UnsignedInteger>(at offset: Int) -> T {
    var value: T = 0
    for index in 0..<MemoryLayout<T>.size { value |= T(self[offset + index]) << T(8 * index) }
    return value
  }
}

extension [UInt8] {
  /// `values` as little-endian bytes, one behind the other.
  static func numbers(_ values: any FixedWidthInteger...) -> [UInt8] {
    var bytes: [UInt8] = []
    for value in values {
      let bits = UInt64(truncatingIfNeeded: value)
      for index in 0..<UInt64(value.bitWidth / 8) {
        bytes.append(UInt8(truncatingIfNeeded: bits >> (8 * index)))
      }
    }
    return bytes
  }
}
