import Host
import Memory
import Synchronization

/// What both transports share: status, features, queues, and the threads that serve them.
///
/// A reset that finds a queue at work doesn't wait: the status stays as it is until the last request
/// is done (virtio 1.2, 2.1.2 and 2.4); drivers poll it.
package final class VirtioCore: Sendable {
  /// Bits of the device status (2.1).
  package struct Status: OptionSet, Sendable {
    /// As the register has them.
    package let rawValue: UInt8
    /// Takes bits as they are.
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The driver knows that it wants the device.
    package static let acknowledge = Status(rawValue: 1)
    /// It knows how to drive it.
    package static let driver = Status(rawValue: 2)
    /// It is ready.
    package static let driverOK = Status(rawValue: 4)
    /// Features are agreed on.
    package static let featuresOK = Status(rawValue: 8)
    /// The device can't go on without a reset.
    package static let needsReset = Status(rawValue: 64)
    /// The driver has given up.
    package static let failed = Status(rawValue: 128)
    static let drivers: Status = [.acknowledge, .driver, .driverOK, .featuresOK, .failed]
  }

  /// A queue's registers.
  package struct QueueRegisters: Sendable {
    /// The size that the driver chose; the largest one until then.
    package var size: UInt16
    /// Where the ring is.
    package var addresses = VirtQueue.Addresses()
    /// Whether the driver has enabled the queue.
    package var isEnabled = false
    /// Whether a reset of this queue is under way.
    package var isResetting = false
  }

  struct Queue {
    let largestSize: UInt16
    var registers: QueueRegisters
    var active: ActiveQueue?
    var remote = RemoteState.stopped
    var isWatched = false
    /// Whether its thread is at it.
    var isInTurn = false

    init(largestSize: UInt16) {
      self.largestSize = largestSize
      registers = QueueRegisters(size: largestSize)
    }
  }

  /// Where a queue is that is served somewhere else.
  enum RemoteState {
    case stopped
    case served
    case stopping
  }

  struct State {
    var status: Status = []
    var features: VirtioFeatures = []
    var queues: [Queue]
    var isResetting = false
    var pause = Pause()
    /// What is to be said once the lock is free.
    var trouble: (kind: DeviceReports.Kind, text: String)?
  }

  /// The device.
  package let device: any VirtioDevice
  /// Its doorbells.
  package let signals: VirtioSignals
  /// What it offers.
  package let offered: VirtioFeatures

  let memory: GuestMemory
  let workers: [Worker]
  private let ownWorkers: [Worker]
  private let counters: [QueueCounters]
  private let observation: DeviceObservation?
  private let label: String
  private let reports: DeviceReports
  private let mayUseMemory: Atomic<Bool>
  private let state: RankedMutex<State>

  /// What the machine gives to a virtio device.
  package struct Surroundings: Sendable {
    /// Guest memory.
    package var memory: GuestMemory
    /// Does the work of devices without threads of their own.
    package var worker: Worker
    /// What is to be seen of devices, if anything.
    package var observation: DeviceObservation?
    /// Where the device is, in words.
    package var place = ""
    /// Hears when a driver broke a device, or something behind it is lost.
    package var reports: DeviceReports

    /// Takes all as they are.
    package init(
      memory: GuestMemory, worker: Worker, reports: DeviceReports,
      observation: DeviceObservation? = nil
    ) {
      self.memory = memory
      self.worker = worker
      self.observation = observation
      self.reports = reports
    }
  }

  /// Puts `device` between the machine and a transport that has `interrupts` and one of `doorbells`
  /// for each queue.
  init(
    _ device: any VirtioDevice, _ surroundings: Surroundings, doorbells: [Doorbell],
    interrupts: any VirtioInterrupts, mayUseMemory: Bool = true
  ) throws(Errno) {
    self.device = device
    memory = surroundings.memory
    reports = surroundings.reports
    self.mayUseMemory = Atomic(mayUseMemory)
    let sizes = device.queueSizes
    // What somebody else serves has what that one knows of.
    offered = device.remote == nil ? device.features.union(.common) : device.features
    observation = surroundings.observation
    label = "\(device.name) \(surroundings.place)"
    signals = VirtioSignals(
      doorbells: doorbells, interrupts: interrupts, worker: surroundings.worker, reports: reports,
      label: label, observer: observation?.makeObserver?(label))
    var own: [Worker] = []
    if device.hasOwnThreads {
      for index in sizes.indices { try own.append(Worker(name: "\(device.name).\(index)")) }
    }
    ownWorkers = own
    workers = own.isEmpty ? sizes.map { _ in surroundings.worker } : own
    counters = sizes.map { _ in QueueCounters() }
    state = RankedMutex(.registers, State(queues: sizes.map(Queue.init)))
    device.connect(to: signals)
    device.remote?.connect(to: self)
    if !mayUseMemory { device.remote?.setMayUseMemory(false) }
  }

  /// Allows or forbids the device to use guest memory. What waits is done once it may.
  func setMayUseMemory(_ mayUse: Bool) {
    mayUseMemory.store(mayUse, ordering: .sequentiallyConsistent)
    device.remote?.setMayUseMemory(mayUse)
    if mayUse { for index in 0..<queueCount { signals.wake(queue: index) } }
  }

  /// Ends all work, after the requests that it is at, and the device's own threads. A shared worker
  /// is its owner's to end.
  package func stop() {
    state.withLock { state in
      for queue in state.queues { _ = queue.active?.stop() }
    }
    device.remote?.end()
    for worker in ownWorkers { worker.stop() }
  }

  /// What the device did; known once all threads ended.
  package var statistics: DeviceStatistics {
    let rings = counters.enumerated().compactMap { number, counters in
      counters.role.map { role in
        DeviceStatistics.Ring(
          number: number, name: role.name,
          statistics: device.remote == nil ? counters.recorder.statistics : .unknown)
      }
    }
    return DeviceStatistics(label: label, rings: rings, counters: device.counters)
  }

  /// The bytes that its queues carried so far; from any thread.
  package var traffic: DeviceTraffic {
    counters.reduce(DeviceTraffic()) { $0 + $1.traffic }
  }

  /// Changes the state, and says afterwards, without the lock, what there is to say.
  func update<Result>(_ body: (inout State) -> Result) -> Result {
    let (result, trouble, still) = state.withLock { state in
      let result = body(&state)
      return (result, state.trouble.take(), state.takeStill())
    }
    if let trouble {
      reports.report(trouble.kind, label, "\(device.name): \(trouble.text)")
    }
    still?()
    return result
  }

  // MARK: Registers

  /// The device status.
  package var status: Status { state.withLock { $0.status } }

  /// How many queues there are.
  package var queueCount: Int { counters.count }

  /// Changes with the configuration space (2.5).
  package var generation: UInt32 { signals.generation }

  /// The features that the driver accepted, 32 at a time.
  package func driverFeatures(_ select: UInt32) -> UInt32 {
    guard select < 2 else { return 0 }
    return UInt32(
      truncatingIfNeeded: state.withLock { $0.features.rawValue } >> UInt64(32 * select))
  }

  /// Takes 32 of the driver's features. They can change until both sides agreed on them.
  package func setDriverFeatures(_ value: UInt32, _ select: UInt32) {
    guard select < 2 else { return }
    state.withLock { state in
      guard !state.status.contains(.featuresOK) else { return }
      let shift = UInt64(32 * select)
      let others = state.features.rawValue & ~(UInt64(UInt32.max) << shift)
      state.features = VirtioFeatures(rawValue: others | UInt64(value) << shift)
    }
  }

  /// The registers of queue `index` and its largest size; nil if there is no such queue.
  package func queue(_ index: Int) -> (registers: QueueRegisters, largestSize: UInt16)? {
    state.withLock { state in
      guard state.queues.indices.contains(index) else { return nil }
      return (state.queues[index].registers, state.queues[index].largestSize)
    }
  }

  /// Changes the registers of queue `index`, which must not be enabled.
  package func changeQueue(_ index: Int, _ change: (inout QueueRegisters) -> Void) {
    state.withLock { state in
      guard state.queues.indices.contains(index), !state.isResetting,
        !state.queues[index].registers.isEnabled
      else { return }
      change(&state.queues[index].registers)
    }
  }

  /// Rings the doorbell of queue `index`, for writes that no ioeventfd takes.
  package func ring(queue index: Int) {
    if index >= 0 && index < queueCount { signals.doorbells[index].event.raise() }
  }

  // MARK: Status

  /// Takes what the driver writes to the device status: 0 resets.
  package func writeStatus(_ value: UInt8) {
    update { state in
      guard !state.isResetting else { return }
      guard value != 0 else { return beginReset(&state) }
      var new = Status(rawValue: value).intersection(.drivers)
      let before = state.status
      if new.contains(.featuresOK), !before.contains(.featuresOK), !accepts(state.features) {
        new.remove(.featuresOK)  // 2.2.2
      }
      // Bits go only by a reset (2.1.1).
      state.status.formUnion(new)
      if new.contains(.driverOK), !before.contains(.driverOK) { start(&state) }
    }
  }

  func accepts(_ features: VirtioFeatures) -> Bool {
    features.isSubset(of: offered) && features.contains(.version1) && device.accepts(features)
  }

  private func start(_ state: inout State) {
    guard state.status.contains(.featuresOK) else {
      return fail("the driver is ready without having agreed on features", &state)
    }
    signals.setDriverReady(true)
    for index in state.queues.indices where state.queues[index].registers.isEnabled {
      start(queue: index, &state)
    }
  }

  /// Ends everything with a reason: the device needs a reset.
  private func fail(
    _ reason: String, _ state: inout State, _ kind: DeviceReports.Kind = .driver
  ) {
    guard !state.status.contains(.needsReset) else { return }
    state.status.insert(.needsReset)
    signals.needsReset()
    state.trouble = (kind, "\(reason); it waits for a reset by the guest's driver")
  }

  // MARK: Queues

  /// Enables queue `index` for good, or until it is reset.
  package func enableQueue(_ index: Int) {
    update { state in
      guard state.queues.indices.contains(index), !state.isResetting,
        !state.queues[index].registers.isEnabled, !state.queues[index].registers.isResetting
      else { return }
      state.queues[index].registers.isEnabled = true
      if state.status.contains([.driverOK, .featuresOK]) { start(queue: index, &state) }
    }
  }

  /// Puts queue `index` to work, which goes on at `position`.
  func start(
    queue index: Int, _ state: inout State, at position: VirtQueue.Position = .init()
  ) {
    guard !state.status.contains(.needsReset) else { return }
    let registers = state.queues[index].registers
    do throws(RingFault) {
      guard registers.size <= state.queues[index].largestSize else {
        throw RingFault(queue: index, .size(registers.size))
      }
      let ring = try VirtQueue(
        index: index, size: registers.size, addresses: registers.addresses,
        features: state.features, memory: memory, start: position)
      let role = device.role(ofQueue: index, state.features)
      counters[index].start(role, observation, label: "\(label) ring \(index)")
      if let remote = device.remote {
        state.queues[index].remote = .served
        let setup = RemoteQueueSetup(
          size: registers.size, addresses: registers.addresses, features: state.features,
          doorbell: signals.doorbells[index], interrupt: signals.interruptEvent(queue: index),
          start: position.available)
        return remote.start(queue: index, setup)
      }
      state.queues[index].active = ActiveQueue(
        ring, features: state.features, signals: signals, counters: counters[index])
    } catch { return fail("\(error)", &state) }
    do throws(Errno) {
      if !state.queues[index].isWatched {
        try workers[index].watch(signals.doorbells[index].event) { [weak self] in self?.serve(index)
        }
        if let number = device.inputDescriptor(queue: index) {
          try workers[index].watch(FileDescriptor(borrowing: number)) { [weak self] in
            self?.serve(index, isDoorbell: false)
          }
        }
        state.queues[index].isWatched = true
      }
    } catch { return fail("no thread for queue \(index): \(error)", &state, .host) }
    // There may be requests that came before the doorbell was of any use.
    signals.wake(queue: index)
  }

  /// A turn of queue `index`, on its thread.
  private func serve(_ index: Int, isDoorbell: Bool = true) {
    let isRung = isDoorbell && !signals.takeWake(queue: index)
    guard mayUseMemory.load(ordering: .sequentiallyConsistent) else { return }
    let queue = state.withLock { state -> ActiveQueue? in
      guard !state.pause.isOn, !state.status.contains(.needsReset),
        let active = state.queues[index].active
      else { return nil }
      state.queues[index].isInTurn = true
      return active
    }
    guard let queue else { return }
    let mustStop = queue.takeTurn {
      if isRung { queue.countDoorbell() }
      do throws(RingFault) {
        try device.serve(queue)
      } catch {
        update { fail("\(error)", &$0) }
      }
    }
    update { state in
      state.queues[index].isInTurn = false
      guard mustStop else { return }
      didStop(index, &state)
      if state.isResetting { finishReset(&state) }
    }
  }

  /// Resets queue `index` alone (2.6.1).
  package func resetQueue(_ index: Int) {
    update { state in
      guard state.queues.indices.contains(index), !state.isResetting else { return }
      state.queues[index].registers.isResetting = true
      if stop(queue: index, &state) { didStop(index, &state) }
    }
  }

  /// Ends the work on queue `index`, and returns whether that was all.
  private func stop(queue index: Int, _ state: inout State) -> Bool {
    switch state.queues[index].remote {
    case .stopped: return state.queues[index].active?.stop() ?? true
    case .stopping: return false
    case .served:
      state.queues[index].remote = .stopping
      device.remote?.stop(queue: index)
      return false
    }
  }

  func didStop(_ index: Int, _ state: inout State) {
    if state.queues[index].active != nil { device.stopped(queue: index) }
    state.queues[index].active = nil
    state.queues[index].remote = .stopped
    state.queues[index].registers = QueueRegisters(size: state.queues[index].largestSize)
  }

  // MARK: Reset

  private func beginReset(_ state: inout State) {
    state.isResetting = true
    signals.setDriverReady(false)
    for index in state.queues.indices where stop(queue: index, &state) {
      didStop(index, &state)
    }
    finishReset(&state)
  }

  /// Ends the reset if no queue is at work any more.
  private func finishReset(_ state: inout State) {
    guard state.queues.allSatisfy({ $0.active == nil && $0.remote == .stopped }) else { return }
    beNew(&state)
  }

  /// What every reset ends with; no queue is at work.
  func beNew(_ state: inout State) {
    state.status = []
    state.features = []
    state.isResetting = false
    signals.setDriverReady(false)
    signals.forget()
    device.reset()
  }
}

extension VirtioCore: VirtioRemoteOwner {
  /// The driver has chosen another way for the interrupts of queue `index`.
  func interruptDidChange(queue index: Int) {
    guard let remote = device.remote else { return }
    state.withLock { state in
      guard state.queues.indices.contains(index), state.queues[index].remote == .served else {
        return
      }
      remote.setInterrupt(signals.interruptEvent(queue: index), queue: index)
    }
  }

  /// Goes on with the reset that waited for this.
  package func remoteDidStop(queue index: Int) {
    update { state in
      guard state.queues[index].remote == .stopping else { return }
      didStop(index, &state)
      if state.isResetting { finishReset(&state) }
    }
  }

  /// Tells the driver.
  package func remoteDidComplete(queue index: Int) { _ = signals.requestsDone(queue: index) }

  /// Lets the device wait for a reset.
  package func remoteDidFail(_ reason: String) {
    update { fail(reason, &$0, .backEnd) }
  }
}
