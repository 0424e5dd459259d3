import Devices
import Host
import Memory

/// The back end's side of one connection: does what the messages of a front end say.
///
/// A message that makes no sense is thrown back as an error, which ends the session: every number and
/// open file in it is the other side's to make up.
struct BackEndSession: ~Copyable {
  private static let protocolFeatures = VirtioFeatures.bit(30)
  /// In a message with an event: the ring's number, and whether there is no event.
  private static let ringMask: UInt64 = 0xFF
  private static let noFile: UInt64 = 0x100
  private static let mostInTurn = 64

  private let device: any VirtioDevice
  private let offered: VirtioFeatures
  private let report: @Sendable (String) -> Void
  private var channel: MessageChannel
  private var features: VirtioFeatures = []
  private var agreed: ProtocolFeatures = []
  private var table: MemoryTable?
  private var rings: [BackEndRing]

  /// A session of `device` with the front end at the other side of `socket`, in turns with others if it
  /// has a `seat`. `report` gets sentences from any thread.
  init(
    _ device: any VirtioDevice, _ socket: consuming UnixSocket, seat: BackEndSeat? = nil,
    report: @escaping @Sendable (String) -> Void
  ) {
    self.device = device
    self.report = report
    offered = device.features.union([
      .indirect, .eventIndex, .version1, Self.protocolFeatures,
    ])
    channel = MessageChannel(socket)
    rings = device.queueSizes.map { _ in
      var ring = BackEndRing()
      ring.seat = seat
      return ring
    }
  }

  /// Calls `body` with the socket, to wait for it.
  func withSocket(_ body: (borrowing FileDescriptor) throws(Errno) -> Void) throws(Errno) {
    try body(channel.socket.descriptor)
  }

  /// Answers the messages that have come, up to so many that others get their turn too. Never waits
  /// for one.
  mutating func serve() throws(VhostUserError) {
    for _ in 0..<Self.mostInTurn {
      guard let message = try channel.next() else { return }
      var answer = try handle(message)
      if answer == nil, message.flags.contains(.needsReply), agreed.contains(.acknowledge) {
        answer = .numbers(UInt64(0))
      }
      guard let answer else { continue }
      var reply = message
      (reply.payload, reply.files) = (answer, [])
      reply.flags = [.version, .reply]
      try channel.send(reply)
    }
  }

  /// Ends the work on all rings.
  mutating func end() {
    for index in rings.indices { rings[index].stop() }
  }

  private mutating func handle(_ message: VhostUserMessage) throws(VhostUserError) -> [UInt8]? {
    guard let request = message.request else {
      throw .unsupported("it asked for request \(message.code), which is unknown")
    }
    switch request {
    case .setMemoryTable, .setRingKick, .setRingCall, .setRingError: break
    default: try message.expect(files: 0)
    }
    switch request {
    case .getFeatures: return .numbers(offered.rawValue)
    case .setFeatures: try setFeatures(number(message))
    case .getProtocolFeatures: return .numbers(ProtocolFeatures.known.rawValue)
    case .setProtocolFeatures:
      agreed = ProtocolFeatures(rawValue: try number(message))
      guard agreed.isSubset(of: .known) else {
        throw .malformed("protocol features that were not offered")
      }
    case .getQueueCount: return .numbers(UInt64(rings.count))
    case .setOwner, .resetOwner: break
    case .setMemoryTable: try setMemoryTable(message)
    case .getConfiguration: return try configuration(message)
    case .setConfiguration: throw .unsupported("it wrote to the configuration space")
    default: return try handleRing(request, message)
    }
    return nil
  }

  /// What each ring did; known after `end()`.
  var statistics: [RequestStatistics] { rings.map(\.statistics) }

  private func number(_ message: VhostUserMessage) throws(VhostUserError) -> UInt64 {
    try message.expect(bytes: 8)
    return message.number(at: 0)
  }

  private mutating func setFeatures(_ bits: UInt64) throws(VhostUserError) {
    features = VirtioFeatures(rawValue: bits)
    guard features.isSubset(of: offered) else {
      throw .malformed("features 0x\(String(bits, radix: 16)), not all of which were offered")
    }
    // Whoever knows nothing of protocol features never enables a ring.
    guard !features.contains(Self.protocolFeatures) else { return }
    for index in rings.indices { rings[index].isEnabled = true }
  }

  /// Takes memory over in place of what there was, under rings that go on after it.
  private mutating func setMemoryTable(_ message: VhostUserMessage) throws(VhostUserError) {
    let running = rings.indices.filter { rings[$0].isRunning }
    for index in running { rings[index].stop() }
    table = try MemoryTable(message)
    for index in running { try start(index) }
  }

  private func configuration(_ message: VhostUserMessage) throws(VhostUserError) -> [UInt8] {
    let header = VhostUserMessage.configurationHeader
    guard message.payload.count >= header else {
      throw .malformed("\(message.name) with \(message.payload.count) bytes")
    }
    let offset: UInt32 = message.number(at: 0)
    let size: UInt32 = message.number(at: 4)
    guard size <= VhostUserMessage.mostConfiguration, offset <= VhostUserMessage.mostConfiguration
    else { throw .malformed("\(size) bytes of configuration space at \(offset)") }
    try message.expect(bytes: header + Int(size))
    let bytes = (0..<UInt64(size)).map {
      UInt8(truncatingIfNeeded: device.readConfiguration(offset: UInt64(offset) + $0, width: 1))
    }
    return message.payload.prefix(header) + bytes
  }

  // MARK: Rings

  private mutating func handleRing(
    _ request: VhostUserMessage.Request, _ message: VhostUserMessage
  ) throws(VhostUserError) -> [UInt8]? {
    switch request {
    case .setRingSize:
      let (index, value) = try ringState(message)
      guard let size = UInt16(exactly: value) else { throw .malformed("a ring of \(value)") }
      try change(index) { $0.size = size }
    case .setRingBase:
      let (index, value) = try ringState(message)
      guard let base = UInt16(exactly: value) else { throw .malformed("ring position \(value)") }
      try change(index) { $0.base = base }
    case .setRingAddress:
      try message.expect(bytes: 40)
      let index = try ring(message.number(at: 0) as UInt32)
      let addresses = VirtQueue.Addresses(
        descriptors: message.number(at: 8), available: message.number(at: 24),
        used: message.number(at: 16))
      try change(index) { $0.addresses = addresses }
    case .getRingBase:
      let (index, _) = try ringState(message)
      rings[index].stop()
      rings[index].kick = nil
      return .numbers(UInt32(index), UInt32(rings[index].base))
    case .setRingEnable:
      let (index, value) = try ringState(message)
      try change(index) { $0.isEnabled = value != 0 }
    default: try setEvent(request, message)
    }
    return nil
  }

  private func ring(_ number: some UnsignedInteger) throws(VhostUserError) -> Int {
    guard let index = Int(exactly: number), rings.indices.contains(index) else {
      throw .malformed("ring \(number) of \(rings.count)")
    }
    return index
  }

  private func ringState(
    _ message: VhostUserMessage
  ) throws(VhostUserError) -> (index: Int, value: UInt32) {
    try message.expect(bytes: 8)
    return (try ring(message.number(at: 0) as UInt32), message.number(at: 4))
  }

  private mutating func setEvent(
    _ request: VhostUserMessage.Request, _ message: VhostUserMessage
  ) throws(VhostUserError) {
    let bits = try number(message)
    let index = try ring(bits & Self.ringMask)
    var event: SharedEvent?
    if bits & Self.noFile == 0 {
      try message.expect(files: 1)
      do throws(Errno) {
        event = try SharedEvent(Event(adopting: message.files[0].file.duplicate()))
      } catch { throw .malformed("a file for ring \(index) that is no event") }
    } else {
      try message.expect(files: 0)
    }
    switch request {
    case .setRingCall: rings[index].signals.call.withLock { $0 = event }
    case .setRingError: rings[index].signals.error.withLock { $0 = event }
    default:
      guard event != nil else { throw .unsupported("it wants rings looked at all the time") }
      try change(index) { $0.kick = event }
    }
  }

  /// Changes a ring, which stops for this and then goes on as it can.
  private mutating func change(
    _ index: Int, _ body: (inout BackEndRing) -> Void
  ) throws(VhostUserError) {
    rings[index].stop()
    body(&rings[index])
    try start(index)
  }

  private mutating func start(_ index: Int) throws(VhostUserError) {
    try rings[index].start(index, device, features, table, report)
  }
}
