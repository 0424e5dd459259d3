import Host
import Memory
import Network

/// All connections of a vsock device, and what follows from packets of the guest and from events of
/// the host's sockets. It never waits, and holds no more than its limits allow.
struct VsockConnections: ~Copyable {
  /// At most so many, those included whose program hasn't said to which port it wants.
  static let most = 512
  /// At most so many refusals wait for the guest to make room; until then it isn't listened to.
  static let mostRefusals = 128
  /// Ports of the host that programs' connections get.
  private static let hostPorts: ClosedRange<UInt32> = 0x4000_0000...0x7FFF_FFFF
  /// At most so many bytes in one packet.
  private static let largestPacket = 64 << 10
  private static let listenerTag: UInt64 = 0

  let poller: Poller
  private let cid: UInt64
  private let host: any VsockHost
  private var connections: [UInt64: VsockConnection] = [:]
  private var byPorts: [VsockConnection.Ports: VsockConnection] = [:]
  private var ready: [VsockConnection] = []
  private var refusals: [VsockPacket] = []
  private var lastID: UInt64 = 0
  private var nextPort = hostPorts.lowerBound
  private var opened: UInt64 = 0
  private var refused: UInt64 = 0
  private var failure: Errno?

  init(cid: UInt64, host: any VsockHost) throws(Errno) {
    let poller = try Poller()
    try poller.addEdges(
      FileDescriptor(borrowing: host.listenerDescriptor), tag: Self.listenerTag)
    self.poller = poller
    self.cid = cid
    self.host = host
  }

  /// How many there are.
  var count: Int { connections.count }
  /// Whether the guest must make room before it is listened to.
  var isFull: Bool { refusals.count >= Self.mostRefusals }
  /// Whether there is something for the guest.
  var hasOutput: Bool { !refusals.isEmpty || !ready.isEmpty }

  /// What the host failed to do since this was asked for last.
  mutating func takeFailure() -> Errno? {
    defer { failure = nil }
    return failure
  }

  /// For `--stats`; the bytes are those of the rings.
  var counters: [DeviceStatistics.Counter] {
    [
      .init("connections_opened", opened), .init("connections_refused", refused),
      .init("connections_left_open", UInt64(connections.count)),
    ]
  }

  /// Ends all of them.
  mutating func removeAll() {
    connections = [:]
    byPorts = [:]
    ready = []
    refusals = []
  }

  private mutating func remove(_ connection: VsockConnection) {
    connections[connection.id] = nil
    if byPorts[connection.ports] === connection { byPorts[connection.ports] = nil }
    if connection.isQueued { ready.removeAll { $0 === connection } }
    poller.remove(connection.socket)
  }

  private mutating func add(
    _ socket: consuming FileDescriptor, _ phase: VsockConnection.Phase,
    _ ports: VsockConnection.Ports
  ) -> VsockConnection? {
    guard connections.count < Self.most else { return nil }
    lastID += 1
    let connection = VsockConnection(id: lastID, socket: socket, phase: phase, ports: ports)
    guard (try? poller.addSocketEdges(connection.socket, tag: lastID)) != nil else { return nil }
    connections[lastID] = connection
    return connection
  }

  private mutating func enqueue(_ connection: VsockConnection) {
    let hasOutput =
      !connection.notices.isEmpty || connection.wantsToRead || connection.failure != nil
    guard !connection.isQueued, hasOutput else { return }
    connection.isQueued = true
    ready.append(connection)
  }

  // MARK: The host's sockets

  /// Takes note of all that happened to the host's sockets.
  mutating func takeEvents() {
    while let tag = poller.next(milliseconds: 0) {
      if tag == Self.listenerTag {
        while let socket = host.accept() {
          _ = add(socket, .greeting([]), VsockConnection.Ports(guest: 0, host: 0))
        }
      } else if let connection = connections[tag] {
        takeEvent(connection)
      }
    }
  }

  private mutating func takeEvent(_ connection: VsockConnection) {
    connection.isReadable = true
    switch connection.phase {
    case .greeting:
      switch connection.readGreeting() {
      case .unfinished: return
      case .wrong: return remove(connection)
      case .port(let port): request(connection, port)
      }
    case .requested:
      // The program doesn't wait any more.
      if connection.socket.isHungUp {
        return connection.notices.contains(.request) ? remove(connection) : abandon(connection)
      }
    case .open:
      connection.flush()
      connection.lookForHangUp()
      endIfDone(connection)
    case .lingering:
      connection.flush()
      if connection.isFlushed || connection.failure != nil { return remove(connection) }
    }
    enqueue(connection)
  }

  private mutating func request(_ connection: VsockConnection, _ port: UInt32) {
    repeat {
      connection.ports = VsockConnection.Ports(guest: port, host: nextPort)
      nextPort = nextPort == Self.hostPorts.upperBound ? Self.hostPorts.lowerBound : nextPort + 1
    } while byPorts[connection.ports] != nil
    byPorts[connection.ports] = connection
    connection.phase = .requested
    connection.notices.insert(.request)
  }

  /// Ends a connection and tells the guest.
  private mutating func abandon(_ connection: VsockConnection) {
    var packet = VsockPacket()
    connection.stamp(&packet)
    packet.operation = VsockPacket.Operation.reset
    refusals.append(packet)
    remove(connection)
  }

  /// Ends a connection whose guest has done with it once its data has gone.
  private mutating func endIfDone(_ connection: VsockConnection) {
    if connection.guestShutdown == .both && connection.isFlushed { abandon(connection) }
  }

  // MARK: From the guest

  /// Takes a packet; `data` is what follows its header.
  mutating func take(_ packet: VsockPacket, _ data: [MemoryView], count: Int) {
    // Others have no way through here.
    guard packet.sourceCID == cid, packet.destinationCID == VsockPacket.hostCID else { return }
    let ports = VsockConnection.Ports(guest: packet.sourcePort, host: packet.destinationPort)
    guard packet.type == VsockPacket.stream else { return refuse(packet) }
    guard let connection = byPorts[ports] else {
      if packet.operation == VsockPacket.Operation.request {
        accept(packet, ports)
      } else {
        refuse(packet)
      }
      return
    }
    connection.takeCredit(from: packet)
    guard perform(packet, connection, data, count) else { return abandon(connection) }
    enqueue(connection)
  }

  private mutating func refuse(_ packet: VsockPacket) {
    // A refusal of a refusal would go on for ever (5.10.6.4).
    guard packet.operation != VsockPacket.Operation.reset else { return }
    if packet.operation == VsockPacket.Operation.request { refused &+= 1 }
    refusals.append(packet.refusal)
  }

  private mutating func accept(_ packet: VsockPacket, _ ports: VsockConnection.Ports) {
    guard connections.count < Self.most, let socket = program(at: ports.host),
      let connection = add(socket, .open, ports)
    else { return refuse(packet) }
    opened &+= 1
    byPorts[ports] = connection
    connection.takeCredit(from: packet)
    connection.notices.insert(.response)
    enqueue(connection)
  }

  private mutating func program(at port: UInt32) -> FileDescriptor? {
    do throws(Errno) { return try host.connect(port: port) } catch {
      failure = error
      return nil
    }
  }

  /// Does what a packet of a connection asks for; false if it is against the rules.
  private mutating func perform(
    _ packet: VsockPacket, _ connection: VsockConnection, _ data: [MemoryView], _ count: Int
  ) -> Bool {
    switch packet.operation {
    case VsockPacket.Operation.response:
      guard connection.phase == .requested else { return false }
      connection.phase = .open
      opened &+= 1
      connection.confirm()
    case VsockPacket.Operation.reset: takeReset(connection)
    case VsockPacket.Operation.shutdown:
      guard connection.phase == .open else { return false }
      connection.shutDown(VsockPacket.Shutdown(rawValue: packet.flags))
      endIfDone(connection)
    case VsockPacket.Operation.data:
      guard connection.phase == .open, !connection.guestShutdown.contains(.send),
        Int(packet.length) <= count, connection.hasRoom(for: packet.length)
      else { return false }
      connection.take(data.slice(0, count: Int(packet.length)), count: Int(packet.length))
    case VsockPacket.Operation.creditUpdate: break
    case VsockPacket.Operation.creditRequest: connection.notices.insert(.creditUpdate)
    default: return false
    }
    return true
  }

  private mutating func takeReset(_ connection: VsockConnection) {
    guard connection.phase == .open, connection.guestShutdown.contains(.send),
      !connection.isFlushed, connection.failure == nil
    else { return remove(connection) }
    // The program still gets what the guest sent before.
    byPorts[connection.ports] = nil
    connection.phase = .lingering
    connection.notices = []
  }

  // MARK: To the guest

  /// Puts the next packet into `buffers`, which have room for a header and a byte, and returns it; nil
  /// if there is nothing to say.
  mutating func give(_ buffers: DescriptorChain) -> VsockPacket? {
    while true {
      if !refusals.isEmpty { return put(refusals.removeFirst(), buffers) }
      guard !ready.isEmpty else { return nil }
      let connection = ready.removeFirst()
      connection.isQueued = false
      let packet = give(connection, buffers)
      if let error = connection.failure {
        // A program may go when it likes.
        if error != .connectionReset { failure = error }
        abandon(connection)
        continue
      }
      // The others first, then it is its turn again.
      enqueue(connection)
      if let packet { return packet }
    }
  }

  private func give(_ connection: VsockConnection, _ buffers: DescriptorChain) -> VsockPacket? {
    guard connection.failure == nil else { return nil }
    var packet = VsockPacket()
    for (notice, operation) in Self.firstNotices
    where connection.notices.remove(notice) != nil {
      packet.operation = operation
      connection.stamp(&packet)
      return put(packet, buffers)
    }
    if connection.wantsToRead {
      if connection.peerRoom == 0 {
        connection.starve()
      } else if let packet = giveData(connection, buffers) {
        return packet
      }
    }
    return connection.failure == nil ? giveLast(connection, buffers) : nil
  }

  private static let firstNotices: [(VsockConnection.Notices, UInt16)] = [
    (.request, VsockPacket.Operation.request), (.response, VsockPacket.Operation.response),
  ]

  /// Credit goes along with data; a shutdown comes after it.
  private func giveLast(_ connection: VsockConnection, _ buffers: DescriptorChain) -> VsockPacket? {
    var packet = VsockPacket()
    if connection.notices.remove(.shutdown) != nil {
      packet.operation = VsockPacket.Operation.shutdown
      packet.flags = connection.hostShutdown.rawValue
    } else if connection.notices.remove(.creditRequest) != nil {
      packet.operation = VsockPacket.Operation.creditRequest
    } else if connection.notices.remove(.creditUpdate) != nil {
      packet.operation = VsockPacket.Operation.creditUpdate
    } else {
      return nil
    }
    connection.stamp(&packet)
    return put(packet, buffers)
  }

  private func giveData(_ connection: VsockConnection, _ buffers: DescriptorChain) -> VsockPacket? {
    // There is room for at least a byte.
    let room = min(
      buffers.writableCount - VsockPacket.count, connection.peerRoom, Self.largestPacket)
    do throws(Errno) {
      let count = try connection.socket.read(
        into: buffers.writable.slice(VsockPacket.count, count: room))
      guard count > 0 else {
        connection.announce(.send)
        connection.lookForHangUp()
        return nil
      }
      connection.countSent(count)
      var packet = VsockPacket()
      packet.operation = VsockPacket.Operation.data
      packet.length = UInt32(count)
      connection.stamp(&packet)
      return put(packet, buffers)
    } catch {
      if error == .tryAgain {
        connection.isReadable = false
      } else if error != .interrupted {
        connection.failure = error
      }
      return nil
    }
  }

  private func put(_ packet: VsockPacket, _ buffers: DescriptorChain) -> VsockPacket {
    var packet = packet
    (packet.sourceCID, packet.destinationCID) = (VsockPacket.hostCID, cid)
    buffers.fill(from: packet.bytes.span)
    return packet
  }
}
