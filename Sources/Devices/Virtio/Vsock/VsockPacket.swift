import Memory

/// The header of a packet between a guest and its host: struct virtio_vsock_hdr (virtio 1.2, 5.10.6).
struct VsockPacket: Equatable {
  static let count = 44

  /// What the packet is for, and what is done to the connection by it.
  enum Operation {
    static let request: UInt16 = 1
    static let response: UInt16 = 2
    static let reset: UInt16 = 3
    static let shutdown: UInt16 = 4
    static let data: UInt16 = 5
    static let creditUpdate: UInt16 = 6
    static let creditRequest: UInt16 = 7
  }

  /// Flags of a shutdown: what its sender won't do any more.
  struct Shutdown: OptionSet {
    let rawValue: UInt32
    static let receive = Shutdown(rawValue: 1)
    static let send = Shutdown(rawValue: 2)
    static let both: Shutdown = [.receive, .send]
  }

  /// The host's address.
  static let hostCID: UInt64 = 2
  /// A stream of bytes; there are no others here.
  static let stream: UInt16 = 1

  var sourceCID: UInt64 = 0
  var destinationCID: UInt64 = 0
  var sourcePort: UInt32 = 0
  var destinationPort: UInt32 = 0
  var length: UInt32 = 0
  var type = stream
  var operation: UInt16 = 0
  var flags: UInt32 = 0
  var bufferSize: UInt32 = 0
  var forwarded: UInt32 = 0

  /// What it is for, as the specification calls it (5.10.6).
  var operationName: StaticString {
    switch operation {
    case Operation.request: "REQUEST"
    case Operation.response: "RESPONSE"
    case Operation.reset: "RST"
    case Operation.shutdown: "SHUTDOWN"
    case Operation.data: "RW"
    case Operation.creditUpdate: "CREDIT_UPDATE"
    case Operation.creditRequest: "CREDIT_REQUEST"
    default: "unknown packet"
    }
  }

  init() {}

  /// The header at the start of what a driver has for the device, which has all of it.
  init(_ chain: DescriptorChain) {
    sourceCID = chain.load(0, as: UInt64.self)
    destinationCID = chain.load(8, as: UInt64.self)
    sourcePort = chain.load(16, as: UInt32.self)
    destinationPort = chain.load(20, as: UInt32.self)
    length = chain.load(24, as: UInt32.self)
    type = chain.load(28, as: UInt16.self)
    operation = chain.load(30, as: UInt16.self)
    flags = chain.load(32, as: UInt32.self)
    bufferSize = chain.load(36, as: UInt32.self)
    forwarded = chain.load(40, as: UInt32.self)
  }

  /// Its bytes.
  var bytes: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self.count)
    func add<T: FixedWidthInteger>(_ value: T) {
      for shift in stride(from: 0, to: T.bitWidth, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
      }
    }
    add(sourceCID)
    add(destinationCID)
    add(sourcePort)
    add(destinationPort)
    add(length)
    add(type)
    add(operation)
    add(flags)
    add(bufferSize)
    add(forwarded)
    return bytes
  }

  /// The answer that there is no such connection.
  var refusal: VsockPacket {
    var answer = VsockPacket()
    (answer.sourceCID, answer.destinationCID) = (destinationCID, sourceCID)
    (answer.sourcePort, answer.destinationPort) = (destinationPort, sourcePort)
    answer.type = type
    answer.operation = Operation.reset
    return answer
  }
}
