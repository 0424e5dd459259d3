import Host
import Memory
import Network

/// A virtio socket device (virtio 1.2, 5.10): streams between programs of the guest and programs of
/// the host, without a network.
package final class VirtioVsock: VirtioDevice {
  private enum Queue {
    static let receive = 0
    static let transmit = 1
    static let event = 2
  }

  /// The addresses that a guest can have: 0 to 2 are taken, and the last one is for any (5.10.4).
  package static let possibleCIDs: ClosedRange<UInt64> = 3...0xFFFF_FFFE

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-vsock" }
  /// A socket device.
  package var type: UInt16 { 19 }
  /// Streams alone, which need no feature.
  package var features: VirtioFeatures { [] }
  /// To the guest, from it, and events, of which there is one.
  package let queueSizes: [UInt16] = [256, 256, 16]

  private struct State: ~Copyable {
    var connections: VsockConnections
    /// A buffer that was taken and not filled, if `holds`.
    var chain = DescriptorChain()
    var holds = false
    var signals: VirtioSignals?
    /// Whether the guest's packets wait until it has made room for refusals.
    var isPaused = false
    /// Whether the guest must hear that its connections are gone.
    var hasLostConnections = false

    init(_ connections: consuming VsockConnections) { self.connections = connections }
  }

  private let cid: UInt64
  private let eventDescriptor: Int32
  private let state: RankedMutex<State>

  /// A device for the guest with the address `cid`, one of `possibleCIDs`, and programs that are
  /// reached by `host`.
  package init(cid: UInt64, host: any VsockHost) throws(Errno) {
    precondition(Self.possibleCIDs.contains(cid), "no guest's address")
    self.cid = cid
    let connections = try VsockConnections(cid: cid, host: host)
    eventDescriptor = connections.poller.descriptor.number
    state = RankedMutex(.device, State(connections))
  }

  /// How many connections there are.
  package var connectionCount: Int { state.withLock { $0.connections.count } }

  /// guest_cid (5.10.4).
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    var bytes = VirtioConfigurationBytes(count: 8)
    bytes.set(cid, at: 0)
    return bytes.read(offset, width)
  }

  /// Keeps what wakes the queues.
  package func connect(to signals: VirtioSignals) { state.withLock { $0.signals = signals } }

  /// What happens to the host's sockets is for the guest to receive.
  package func inputDescriptor(queue: Int) -> Int32? {
    queue == Queue.receive ? eventDescriptor : nil
  }

  /// Forgets the buffer that it holds.
  package func stopped(queue index: Int) {
    if index == Queue.receive { state.withLock { $0.holds = false } }
  }

  /// Ends all connections.
  package func reset() {
    state.withLock { state in
      state.connections.removeAll()
      state.isPaused = false
      state.hasLostConnections = false
    }
  }

  /// Connections can't be taken along, as the other ends are this host's programs.
  package func save(to state: inout StateWriter) {
    let hasLost = self.state.withLock { $0.hasLostConnections || $0.connections.count > 0 }
    state.write("cid", cid)
    state.write("losesConnections", hasLost)
  }

  /// Has the guest hear that connections are gone, if there were any, or that its address is another
  /// one (5.10.6.7).
  package func restore(
    from state: StateReader, _ features: VirtioFeatures
  ) throws(StateError) {
    let formerly: UInt64 = try state.read("cid", in: Self.possibleCIDs)
    let hasLost = try state.readFlag("losesConnections") || formerly != cid
    self.state.withLock { $0.hasLostConnections = hasLost }
  }

  /// Connections, and the bytes that they carried.
  package var counters: [DeviceStatistics.Counter] { state.withLock { $0.connections.counters } }

  /// To the guest, from it, and events.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    switch index {
    case Queue.receive: VirtioQueueRole("rx", isRead: true)
    case Queue.transmit: VirtioQueueRole("tx", isWritten: true)
    default: VirtioQueueRole("event")
    }
  }

  /// Carries packets one way or the other.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
    let (failure, signals) = try state.withLock {
      (state) throws(RingFault) -> (Errno?, VirtioSignals?) in
      switch queue.index {
      case Queue.receive: try Self.receive(&state, queue)
      case Queue.transmit: try Self.transmit(&state, queue)
      case Queue.event: try Self.tellOfLoss(&state, queue)
      default: break
      }
      return (state.connections.takeFailure(), state.signals)
    }
    if let failure {
      signals?.report(.host, "\(name): a connection failed on the host: \(failure)")
    }
  }

  /// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, which is 0 in four bytes.
  private static func tellOfLoss(
    _ state: inout State, _ queue: ActiveQueue
  ) throws(RingFault) {
    var chain = DescriptorChain()
    repeat {
      while state.hasLostConnections, try queue.take(&chain) {
        guard chain.writableCount >= 4 else {
          throw RingFault(queue: queue.index, .request("has no room for an event"))
        }
        chain.fill(from: [UInt8](repeating: 0, count: 4).span)
        queue.request = DeviceRequest("TRANSPORT_RESET")
        queue.complete(chain.head, written: 4)
        state.hasLostConnections = false
      }
      queue.flush()
    } while !queue.shouldStop && state.hasLostConnections && queue.awaitDoorbell()
  }

  // MARK: To the guest

  private static func receive(
    _ state: inout State, _ queue: ActiveQueue
  ) throws(RingFault) {
    state.connections.takeEvents()
    queue.silenceDoorbell()
    repeat {
      while state.connections.hasOutput, try takeBuffer(&state, queue) {
        queue.begin()
        guard let packet = state.connections.give(state.chain) else { break }
        state.holds = false
        let count = VsockPacket.count + Int(packet.length)
        queue.request = DeviceRequest(packet.operationName, .toGuest, bytes: UInt64(packet.length))
        queue.complete(state.chain.head, written: UInt32(count))
      }
      queue.flush()
    } while !queue.shouldStop && state.connections.hasOutput && queue.awaitDoorbell()
    if state.isPaused && !state.connections.isFull {
      state.isPaused = false
      state.signals?.wake(queue: Queue.transmit)
    }
  }

  private static func takeBuffer(
    _ state: inout State, _ queue: ActiveQueue
  ) throws(RingFault) -> Bool {
    if state.holds { return true }
    guard try queue.take(&state.chain) else { return false }
    guard state.chain.writableCount > VsockPacket.count else {
      throw RingFault(queue: queue.index, .request("has no room for a packet"))
    }
    state.holds = true
    return true
  }

  // MARK: From the guest

  private static func transmit(
    _ state: inout State, _ queue: ActiveQueue
  ) throws(RingFault) {
    var chain = DescriptorChain()
    queue.silenceDoorbell()
    repeat {
      while !state.connections.isFull, try queue.take(&chain) {
        guard chain.readableCount >= VsockPacket.count else {
          throw RingFault(queue: queue.index, .request("has less than a packet's header"))
        }
        let packet = VsockPacket(chain)
        chain.dropReadable(VsockPacket.count)
        state.connections.take(packet, chain.readable, count: chain.readableCount)
        queue.request = DeviceRequest(
          packet.operationName, .fromGuest, bytes: UInt64(chain.readableCount))
        queue.complete(chain.head, written: 0)
      }
      queue.flush()
      state.isPaused = state.connections.isFull
    } while !queue.shouldStop && !state.isPaused && queue.awaitDoorbell()
    if state.connections.hasOutput { state.signals?.wake(queue: Queue.receive) }
  }
}
