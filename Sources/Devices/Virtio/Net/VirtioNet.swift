import Host
import Memory
import Network
import Synchronization

/// A virtio network card (virtio 1.2, 5.1) in front of a back end.
///
/// Each queue has its own thread. Frames that the guest has no buffers for wait in the back end.
public final class VirtioNet: VirtioDevice {
  /// The size of each queue.
  public static let queueSize: UInt16 = 256
  /// The control queue's.
  static let controlQueueSize: UInt16 = 64
  /// The smallest and the largest MTU that may be advised (5.1.4.1).
  public static let possibleMTUs: ClosedRange<UInt16> = 68...65535

  /// The name that traces and tables show.
  public var name: StaticString { "virtio-net" }
  /// A network card.
  public var type: UInt16 { 1 }
  /// What it offers: of the offloads those that the back end has.
  public let features: VirtioFeatures
  /// Two for each pair, and the control queue.
  public let queueSizes: [UInt16]
  /// The host's network may take its time.
  public var hasOwnThreads: Bool { true }

  private struct State {
    var mac: MACAddress
    var isLinkUp = true
    /// For which features the back end was told of offloads.
    var applied: VirtioFeatures?
    /// Which of them the guest takes now.
    var guestOffloads: NetworkOffloads = []
    var signals: VirtioSignals?
  }

  private enum Role {
    case receive(Int)
    case transmit(Int)
    case control
  }

  private let backEnd: any NetworkBackEnd
  private let factoryMAC: MACAddress
  private let mtu: UInt16?
  private let report: @Sendable (String) -> Void
  private let receivers: [VirtioNetReceiver]
  private let transmitters: [VirtioNetTransmitter]
  private let state: Mutex<State>

  /// A card with the address `mac`, as many pairs of queues as `backEnd` has, and the advice to use
  /// `mtu` if there is one. `report` gets a sentence when the back end is no more.
  public init(
    _ backEnd: any NetworkBackEnd, mac: MACAddress, mtu: UInt16? = nil,
    report: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(Errno) {
    self.backEnd = backEnd
    self.mtu = mtu
    self.report = report
    factoryMAC = mac
    let pairs = backEnd.queueCount
    features = NetFeature.offered(backEnd.offloads, hasMTU: mtu != nil, pairs: pairs)
    queueSizes =
      [UInt16](repeating: Self.queueSize, count: 2 * pairs) + [Self.controlQueueSize]
    var receivers: [VirtioNetReceiver] = []
    var transmitters: [VirtioNetTransmitter] = []
    for pair in 0..<pairs {
      receivers.append(try VirtioNetReceiver(backEnd, pair: pair))
      transmitters.append(try VirtioNetTransmitter(backEnd, pair: pair))
    }
    self.receivers = receivers
    self.transmitters = transmitters
    state = Mutex(State(mac: mac))
    // Another machine may have had it before.
    backEnd.allow([])
    backEnd.setActiveQueues(1)
  }

  /// The card's address as the guest has it now.
  public var mac: MACAddress { state.withLock { $0.mac } }
  /// Whether the cable is in.
  public var isLinkUp: Bool { state.withLock { $0.isLinkUp } }
  /// How many of the guest's frames were not sent.
  public var droppedFrames: UInt64 { transmitters.reduce(0) { $0 &+ $1.dropped } }

  // MARK: Registers

  /// Whether each feature has those that it needs (5.1.3.1).
  public func accepts(_ features: VirtioFeatures) -> Bool { NetFeature.isConsistent(features) }

  /// Keeps what tells the driver of the link.
  public func connect(to signals: VirtioSignals) { state.withLock { $0.signals = signals } }

  /// The back end's file, for receive queues.
  public func inputDescriptor(queue: Int) -> Int32? {
    // The control queue is the last one.
    guard queue & 1 == 0, queue / 2 < receivers.count else { return nil }
    return backEnd.inputDescriptor(queue: queue / 2)
  }

  /// struct virtio_net_config (5.1.4).
  public func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    var bytes = VirtioConfigurationBytes(count: 12)
    let (mac, isLinkUp) = state.withLock { ($0.mac, $0.isLinkUp) }
    for (index, byte) in mac.bytes.enumerated() { bytes.set(byte, at: index) }
    bytes.set(UInt16(isLinkUp ? 1 : 0), at: 6)  // VIRTIO_NET_S_LINK_UP
    bytes.set(UInt16(receivers.count), at: 8)
    bytes.set(mtu ?? 0, at: 10)
    return bytes.read(offset, width)
  }

  /// Forgets a receive queue's buffers with it.
  public func stopped(queue index: Int) {
    if index & 1 == 0, index / 2 < receivers.count { receivers[index / 2].forget() }
  }

  /// Takes offloads and queues back.
  public func reset() {
    state.withLock { state in
      state.mac = factoryMAC
      state.applied = nil
      state.guestOffloads = []
    }
    backEnd.allow([])
    backEnd.setActiveQueues(1)
  }

  /// Frames each way, and those that went nowhere.
  public var counters: [DeviceStatistics.Counter] {
    let received = receivers.map(\.frames)
    return [
      .init("frames_to_guest", received.reduce(0) { $0 &+ $1.moved }),
      .init("dropped_to_guest", received.reduce(0) { $0 &+ $1.dropped }),
      .init("frames_from_guest", transmitters.reduce(0) { $0 &+ $1.sent }),
      .init("dropped_from_guest", droppedFrames),
    ]
  }

  // MARK: Queues

  /// Without several pairs agreed on, the control queue is the third (5.1.2).
  private func role(_ index: Int, _ features: VirtioFeatures) -> Role? {
    let pairs = features.contains(NetFeature.multiqueue) ? receivers.count : 1
    if index == 2 * pairs {
      return features.contains(NetFeature.controlQueue) ? .control : nil
    }
    guard index < 2 * pairs else { return nil }
    return index & 1 == 0 ? .receive(index / 2) : .transmit(index / 2)
  }

  /// Frames one way or the other, or commands.
  public func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    switch role(index, features) {
    case .receive: VirtioQueueRole("receiveq", isRead: true)
    case .transmit: VirtioQueueRole("transmitq", isWritten: true)
    case .control: VirtioQueueRole("controlq")
    case nil: VirtioQueueRole("unused")
    }
  }

  /// Moves frames one way or the other, or does as the driver commands.
  public func serve(_ queue: ActiveQueue) throws(RingFault) {
    switch role(queue.index, queue.features) {
    case .receive(let pair):
      guard let offloads = prepare(queue.features) else { return }
      if let ended = try receivers[pair].serve(queue, allowed: offloads) { cableIsOut(ended) }
    case .transmit(let pair): try transmitters[pair].serve(queue)
    case .control:
      try queue.drain { chain throws(RingFault) in
        queue.request = try VirtioNetControl(features: queue.features).perform(
          chain, queue: queue.index, on: self)
        return 1
      }
    case nil: break
    }
  }

  /// Tells the back end what the driver agreed to, once; nil if the cable is out.
  private func prepare(_ features: VirtioFeatures) -> NetworkOffloads? {
    state.withLock { state in
      guard state.isLinkUp else { return nil }
      if state.applied != features {
        state.applied = features
        state.guestOffloads = NetFeature.guestOffloads(features)
        backEnd.allow(state.guestOffloads)
      }
      return state.guestOffloads
    }
  }

  private func cableIsOut(_ error: NetworkError) {
    let signals = state.withLock { state -> VirtioSignals? in
      guard state.isLinkUp else { return nil }
      state.isLinkUp = false
      return state.signals
    }
    guard let signals else { return }
    report("\(name): \(error)")
    signals.configurationChanged()
  }
}

// What the control queue asks for.
extension VirtioNet {
  func set(mac: MACAddress) { state.withLock { $0.mac = mac } }

  /// False unless there are so many pairs.
  func set(activePairs count: Int) -> Bool {
    guard (1...receivers.count).contains(count) else { return false }
    backEnd.setActiveQueues(count)
    return true
  }

  func set(guestOffloads: NetworkOffloads) {
    state.withLock { state in
      state.guestOffloads = guestOffloads
      backEnd.allow(guestOffloads)
    }
  }
}
