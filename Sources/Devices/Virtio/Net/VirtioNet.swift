import Host
import Memory
import Network

/// A virtio network card (virtio 1.2, 5.1) in front of a back end.
///
/// Each queue has its own thread. Frames that the guest has no buffers for wait in the back end.
package final class VirtioNet: VirtioDevice {
  /// The size of each queue.
  package static let queueSize: UInt16 = 256
  /// The control queue's.
  static let controlQueueSize: UInt16 = 64
  /// The smallest and the largest MTU that may be advised (5.1.4.1).
  package static let possibleMTUs: ClosedRange<UInt16> = 68...65535

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-net" }
  /// A network card.
  package var type: UInt16 { 1 }
  /// What it offers: of the offloads those that the back end has.
  package let features: VirtioFeatures
  /// Two for each pair, and the control queue.
  package let queueSizes: [UInt16]
  /// The host's network may take its time.
  package var hasOwnThreads: Bool { true }

  private struct State {
    var mac: MACAddress
    var isLinkUp = true
    var activePairs = 1
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
  private let receivers: [VirtioNetReceiver]
  private let transmitters: [VirtioNetTransmitter]
  private let state: RankedMutex<State>

  /// A card with the address `mac`, as many pairs of queues as `backEnd` has, and the advice to use
  /// `mtu` if there is one.
  package init(
    _ backEnd: any NetworkBackEnd, mac: MACAddress, mtu: UInt16? = nil
  ) throws(Errno) {
    self.backEnd = backEnd
    self.mtu = mtu
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
    state = RankedMutex(.device, State(mac: mac))
    // Another machine may have had it before.
    backEnd.allow([])
    backEnd.setActiveQueues(1)
  }

  /// The card's address as the guest has it now.
  package var mac: MACAddress { state.withLock { $0.mac } }
  /// Whether the cable is in.
  package var isLinkUp: Bool { state.withLock { $0.isLinkUp } }
  /// How many of the guest's frames were not sent.
  package var droppedFrames: UInt64 { transmitters.reduce(0) { $0 &+ $1.dropped } }

  // MARK: Registers

  /// Whether each feature has those that it needs (5.1.3.1).
  package func accepts(_ features: VirtioFeatures) -> Bool { NetFeature.isConsistent(features) }

  /// Keeps what tells the driver of the link. A program behind it is heard from now on, whether or not
  /// there is a driver.
  package func connect(to signals: VirtioSignals) {
    state.withLock { $0.signals = signals }
    guard let program = backEnd as? any NetworkProgram else { return }
    do throws(Errno) {
      try program.follow(on: signals.worker) { [weak signals] line in
        signals?.report(.words, line)
      } ended: { [weak self] error in
        self?.cableIsOut(error)
      }
    } catch { signals.report(.host, "\(name): nobody listens to \(program.name): \(error)") }
  }

  /// The back end's file, for receive queues.
  package func inputDescriptor(queue: Int) -> Int32? {
    // The control queue is the last one.
    guard queue & 1 == 0, queue / 2 < receivers.count else { return nil }
    return backEnd.inputDescriptor(queue: queue / 2)
  }

  /// struct virtio_net_config (5.1.4).
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    var bytes = VirtioConfigurationBytes(count: 12)
    let (mac, isLinkUp) = state.withLock { ($0.mac, $0.isLinkUp) }
    for (index, byte) in mac.bytes.enumerated() { bytes.set(byte, at: index) }
    bytes.set(UInt16(isLinkUp ? 1 : 0), at: 6)  // VIRTIO_NET_S_LINK_UP
    bytes.set(UInt16(receivers.count), at: 8)
    bytes.set(mtu ?? 0, at: 10)
    return bytes.read(offset, width)
  }

  /// Forgets a receive queue's buffers with it.
  package func stopped(queue index: Int) {
    if index & 1 == 0, index / 2 < receivers.count { receivers[index / 2].forget() }
  }

  /// Takes offloads and queues back.
  package func reset() {
    state.withLock { state in
      state.mac = factoryMAC
      state.applied = nil
      state.guestOffloads = []
      state.activePairs = 1
    }
    backEnd.allow([])
    backEnd.setActiveQueues(1)
  }

  /// Writes what the driver has set, and whether it was told that the cable is out.
  package func save(to state: inout StateWriter) {
    let own = self.state.withLock { $0 }
    state.write("mac", own.mac.bytes)
    state.write("linkUp", own.isLinkUp)
    state.write("activePairs", UInt16(own.activePairs))
    state.write("offloadsApplied", own.applied != nil)
    state.write("offloads", own.guestOffloads.rawValue)
  }

  /// Takes that, and tells the driver if the cable is not as it was. Frames that waited are lost.
  package func restore(
    from state: StateReader, _ features: VirtioFeatures
  ) throws(StateError) {
    guard let mac = MACAddress(try state.readBytes("mac", count: 6)) else {
      throw .impossible("mac")
    }
    let wasUp = try state.readFlag("linkUp")
    let pairs = Int(try state.read("activePairs", in: 1...UInt16(clamping: receivers.count)))
    let isApplied = try state.readFlag("offloadsApplied")
    let offloads = NetworkOffloads(rawValue: try state.read("offloads"))
    guard offloads.isSubset(of: isApplied ? NetFeature.guestOffloads(features) : []) else {
      throw .impossible("offloads")
    }
    let signals = self.state.withLock { own in
      (own.mac, own.activePairs) = (mac, pairs)
      own.applied = isApplied ? features : nil
      own.guestOffloads = offloads
      return own.isLinkUp == wasUp ? nil : own.signals
    }
    backEnd.allow(offloads)
    backEnd.setActiveQueues(pairs)
    signals?.configurationChanged()
  }

  /// Frames each way, and those that went nowhere.
  package var counters: [DeviceStatistics.Counter] {
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
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    switch role(index, features) {
    case .receive: VirtioQueueRole("receiveq", isRead: true)
    case .transmit: VirtioQueueRole("transmitq", isWritten: true)
    case .control: VirtioQueueRole("controlq")
    case nil: VirtioQueueRole("unused")
    }
  }

  /// Moves frames one way or the other, or does as the driver commands.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
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
    signals.report(.backEnd, "\(name): \(error)")
    signals.configurationChanged()
  }
}

// What the control queue asks for.
extension VirtioNet {
  func set(mac: MACAddress) { state.withLock { $0.mac = mac } }

  /// False unless there are so many pairs.
  func set(activePairs count: Int) -> Bool {
    guard (1...receivers.count).contains(count) else { return false }
    state.withLock { $0.activePairs = count }
    backEnd.setActiveQueues(count)
    return true
  }

  /// Instead of what follows from `features`, which the driver has agreed to.
  func set(guestOffloads: NetworkOffloads, insteadOf features: VirtioFeatures) {
    state.withLock { state in
      state.applied = features
      state.guestOffloads = guestOffloads
      backEnd.allow(guestOffloads)
    }
  }
}
