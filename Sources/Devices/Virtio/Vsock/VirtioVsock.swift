import Host
import Memory
import Network
import Synchronization

/// A virtio socket device (virtio 1.2, 5.10): streams between programs of the guest and programs of
/// the host, without a network.
public final class VirtioVsock: VirtioDevice {
  private enum Queue {
    static let receive = 0
    static let transmit = 1
  }

  /// The addresses that a guest can have: 0 to 2 are taken, and the last one is for any (5.10.4).
  public static let possibleCIDs: ClosedRange<UInt64> = 3...0xFFFF_FFFE

  /// The name that traces and tables show.
  public var name: StaticString { "virtio-vsock" }
  /// A socket device.
  public var type: UInt16 { 19 }
  /// Streams alone, which need no feature.
  public var features: VirtioFeatures { [] }
  /// To the guest, from it, and events, of which there are none.
  public let queueSizes: [UInt16] = [256, 256, 16]

  private struct State: ~Copyable {
    var connections: VsockConnections
    /// A buffer that was taken and not filled, if `holds`.
    var chain = DescriptorChain()
    var holds = false
    var signals: VirtioSignals?
    /// Whether the guest's packets wait until it has made room for refusals.
    var isPaused = false

    init(_ connections: consuming VsockConnections) { self.connections = connections }
  }

  private let cid: UInt64
  private let eventDescriptor: Int32
  private let state: Mutex<State>

  /// A device for the guest with the address `cid`, one of `possibleCIDs`, and programs that are
  /// reached by `host`.
  public init(cid: UInt64, host: any VsockHost) throws(Errno) {
    precondition(Self.possibleCIDs.contains(cid), "no guest's address")
    self.cid = cid
    let connections = try VsockConnections(cid: cid, host: host)
    eventDescriptor = connections.poller.descriptor.number
    state = Mutex(State(connections))
  }

  /// How many connections there are.
  public var connectionCount: Int { state.withLock { $0.connections.count } }

  /// guest_cid (5.10.4).
  public func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    var bytes = VirtioConfigurationBytes(count: 8)
    bytes.set(cid, at: 0)
    return bytes.read(offset, width)
  }

  /// Keeps what wakes the queues.
  public func connect(to signals: VirtioSignals) { state.withLock { $0.signals = signals } }

  /// What happens to the host's sockets is for the guest to receive.
  public func inputDescriptor(queue: Int) -> Int32? {
    queue == Queue.receive ? eventDescriptor : nil
  }

  /// Forgets the buffer that it holds.
  public func stopped(queue index: Int) {
    if index == Queue.receive { state.withLock { $0.holds = false } }
  }

  /// Ends all connections.
  public func reset() {
    state.withLock { state in
      state.connections.removeAll()
      state.isPaused = false
    }
  }

  /// Connections, and the bytes that they carried.
  public var counters: [DeviceStatistics.Counter] { state.withLock { $0.connections.counters } }

  /// To the guest, from it, and events.
  public func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    switch index {
    case Queue.receive: VirtioQueueRole("rx", isRead: true)
    case Queue.transmit: VirtioQueueRole("tx", isWritten: true)
    default: VirtioQueueRole("event")
    }
  }

  /// Carries packets one way or the other.
  public func serve(_ queue: ActiveQueue) throws(RingFault) {
    try state.withLock { (state) throws(RingFault) in
      switch queue.index {
      case Queue.receive: try Self.receive(&state, queue)
      case Queue.transmit: try Self.transmit(&state, queue)
      default: break
      }
    }
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
