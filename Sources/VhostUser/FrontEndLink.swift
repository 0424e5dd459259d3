import Devices
import Host
import Memory

/// The front end's side of a connection: each call sends a message and waits for what is said to it.
struct FrontEndLink: ~Copyable {
  /// What a block device's configuration space has up to write_zeroes_may_unmap (virtio 1.2, 5.2.4):
  /// some back ends refuse to tell more.
  static let configurationSize = 60

  /// The features of the back end, less those of the protocol's own.
  let features: VirtioFeatures
  /// How many queues it has.
  let queueCount: Int
  /// Its configuration space.
  let configuration: [UInt8]

  private static let protocolFeatures = VirtioFeatures.bit(30)
  private static let mostQueues: UInt64 = 256
  private let agreed: ProtocolFeatures
  private var channel: MessageChannel
  private let shouldStop: @Sendable () -> Bool

  /// Gets to know the back end at the other side of `socket`. Waits for it until `shouldStop`, and no
  /// longer than `seconds`.
  init(
    _ socket: consuming UnixSocket, within seconds: Double = 30,
    unless shouldStop: @escaping @Sendable () -> Bool
  ) throws(VhostUserError) {
    let deadline = Clock.monotonicNanoseconds &+ UInt64(seconds * 1e9)
    var channel = MessageChannel(socket)
    let first: VhostUserMessage
    do throws(VhostUserError) {
      first = try Self.ask(.init(.getFeatures), &channel, shouldStop, until: deadline)
    } catch {
      guard error == .closed else { throw error }
      throw .unsupported("the other side sent us away: does it serve another machine?")
    }
    let all = VirtioFeatures(rawValue: try Self.number(first))
    guard all.contains(.version1) else {
      throw .unsupported("the back end knows only virtio 0.9")
    }
    guard all.contains(Self.protocolFeatures) else {
      throw .unsupported("the back end lacks protocol features")
    }
    let offered = ProtocolFeatures(
      rawValue: try Self.number(
        Self.ask(.init(.getProtocolFeatures), &channel, shouldStop, until: deadline)))
    guard offered.contains(.configuration) else {
      throw .unsupported("the back end has no configuration space")
    }
    let agreed = offered.intersection(.known)
    try channel.send(.init(.setProtocolFeatures, .numbers(agreed.rawValue)))
    var queueCount: UInt64 = 1
    if agreed.contains(.queueCount) {
      queueCount = try Self.number(
        Self.ask(.init(.getQueueCount), &channel, shouldStop, until: deadline))
      guard (1...Self.mostQueues).contains(queueCount) else {
        throw .malformed("\(queueCount) queues")
      }
    }
    try channel.send(.init(.setOwner))
    let size = Self.configurationSize
    let request = VhostUserMessage(
      .getConfiguration,
      .numbers(UInt32(0), UInt32(size), UInt32(0)) + [UInt8](repeating: 0, count: size))
    let reply = try Self.ask(request, &channel, shouldStop, until: deadline)
    try reply.expect(bytes: VhostUserMessage.configurationHeader + size)
    configuration = Array(reply.payload.dropFirst(VhostUserMessage.configurationHeader))
    features = all.subtracting(Self.protocolFeatures)
    self.queueCount = Int(queueCount)
    self.agreed = agreed
    self.channel = channel
    self.shouldStop = shouldStop
  }

  /// The socket, to hear of the other side's end.
  var descriptor: Int32 { channel.socket.descriptor.number }

  /// Calls `body` with the socket.
  func withSocket(
    _ body: (borrowing FileDescriptor) throws(Errno) -> Void
  ) throws(VhostUserError) {
    do throws(Errno) { try body(channel.socket.descriptor) } catch { throw .host(error) }
  }

  /// Throws if the other side has closed, or says something that nobody asked for.
  mutating func check() throws(VhostUserError) {
    if let message = try channel.next() { throw .malformed("\(message.name) out of turn") }
  }

  // MARK: A driver's life

  /// Tells what the driver agreed to, and gives the other side all RAM of `memory`.
  mutating func begin(_ features: VirtioFeatures, _ memory: GuestMemory) throws(VhostUserError) {
    let all = features.union(Self.protocolFeatures)
    try tell(.init(.setFeatures, .numbers(all.rawValue)))
    var entries: [MemoryTable.Entry] = []
    var files: [Int32] = []
    for region in memory.regions where region.kind == .ram {
      guard let file = region.mapping.fileNumber else {
        throw .unsupported("the guest's memory can't be shared")
      }
      entries.append(
        MemoryTable.Entry(
          start: region.start.value, count: region.count, address: region.mapping.address,
          offset: 0))
      files.append(file)
    }
    try tell(.init(.setMemoryTable, MemoryTable.payload(entries)), files)
  }

  /// Lets queue `index` be served from position `base` of its ring on; `interrupt` is raised for
  /// requests that are done.
  mutating func start(
    queue index: Int, _ setup: RemoteQueueSetup, _ memory: GuestMemory, base: UInt16,
    interrupt: SharedEvent
  ) throws(VhostUserError) {
    let number = UInt32(index)
    func address(_ guest: UInt64) throws(VhostUserError) -> UInt64 {
      for region in memory.regions where region.start.value <= guest {
        let offset = guest - region.start.value
        if offset < region.count { return region.mapping.address &+ offset }
      }
      throw .malformed("a ring outside guest memory")
    }
    let ring = setup.addresses
    try tell(.init(.setRingSize, .numbers(number, UInt32(setup.size))))
    try tell(.init(.setRingBase, .numbers(number, UInt32(base))))
    try tell(
      .init(
        .setRingAddress,
        .numbers(
          number, UInt32(0), address(ring.descriptors), address(ring.used),
          address(ring.available), UInt64(0))))
    try setInterrupt(interrupt, queue: index)
    try tell(
      .init(.setRingKick, .numbers(UInt64(index))), [setup.doorbell.event.descriptor.number])
    try tell(.init(.setRingEnable, .numbers(number, UInt32(1))))
    // There may be requests already.
    setup.doorbell.event.raise()
  }

  /// Lets `event` be raised for requests of queue `index` that are done.
  mutating func setInterrupt(
    _ event: SharedEvent, queue index: Int
  ) throws(VhostUserError) {
    try tell(.init(.setRingCall, .numbers(UInt64(index))), [event.event.descriptor.number])
  }

  /// Ends the work on queue `index`, and returns where its ring goes on.
  mutating func stop(queue index: Int) throws(VhostUserError) -> UInt16 {
    let message = VhostUserMessage(.getRingBase, .numbers(UInt32(index), UInt32(0)))
    let reply = try Self.ask(message, &channel, shouldStop)
    try reply.expect(bytes: 8)
    let number: UInt32 = reply.number(at: 0)
    let base: UInt32 = reply.number(at: 4)
    guard number == UInt32(index), let base = UInt16(exactly: base) else {
      throw .malformed("position \(base) of ring \(number)")
    }
    return base
  }

  // MARK: Messages

  private mutating func tell(
    _ message: VhostUserMessage, _ descriptors: [Int32] = []
  ) throws(VhostUserError) {
    guard agreed.contains(.acknowledge) else {
      return try channel.send(message, descriptors: descriptors)
    }
    var message = message
    message.flags.insert(.needsReply)
    let reply = try Self.ask(message, &channel, shouldStop, descriptors)
    guard try Self.number(reply) == 0 else {
      throw .unsupported("the other side refused \(message.name)")
    }
  }

  private static func ask(
    _ message: VhostUserMessage, _ channel: inout MessageChannel, _ shouldStop: () -> Bool,
    _ descriptors: [Int32] = [], until deadline: UInt64 = .max
  ) throws(VhostUserError) -> VhostUserMessage {
    try channel.send(message, descriptors: descriptors)
    let reply = try channel.wait(unless: shouldStop, until: deadline)
    guard reply.code == message.code, reply.flags.contains(.reply) else {
      throw .malformed("\(reply.name) instead of an answer to \(message.name)")
    }
    try reply.expect(files: 0)
    return reply
  }

  private static func number(_ message: VhostUserMessage) throws(VhostUserError) -> UInt64 {
    try message.expect(bytes: 8)
    return message.number(at: 0)
  }
}
