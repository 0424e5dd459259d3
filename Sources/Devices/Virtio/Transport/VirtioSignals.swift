import Host
import Synchronization

/// How a transport tells the driver of something.
package protocol VirtioInterrupts: AnyObject, Sendable {
  /// Requests of `queue` are done. Called by the queue's thread. Returns how the driver was told.
  func signal(queue: Int) -> DeviceInterrupt
  /// The configuration changed, or the device needs a reset. Called by any thread; must not call the
  /// device back. Returns how the driver was told.
  func signalConfiguration() -> DeviceInterrupt
  /// What can be raised instead of `signal(queue:)`, by whom it may be; nil if nothing can.
  func event(queue: Int) -> SharedEvent?
  /// Forgets what was told: the device has been reset. Called by any thread.
  func reset()
}

extension VirtioInterrupts {
  /// Nothing can.
  package func event(queue: Int) -> SharedEvent? { nil }
}

/// What a queue at work asks of those around it, from its thread.
package protocol QueueSignals: AnyObject, Sendable {
  /// Gives queue `index` another turn soon.
  func wake(queue index: Int)
  /// Tells the driver that requests of the queue are done, and returns how.
  @discardableResult
  func requestsDone(queue: Int) -> DeviceInterrupt
}

/// What a device can ask of those around it, from any thread.
package final class VirtioSignals: QueueSignals {
  /// One for each queue.
  package let doorbells: [Doorbell]
  /// Does what is no queue's work.
  package let worker: Worker
  private let interrupts: any VirtioInterrupts
  private let reports: DeviceReports
  private let label: String
  private let observer: (any RequestObserver)?
  /// Which queues were given a turn without their doorbells.
  private let ownWakes: [Flag]
  private let generationValue = Atomic<UInt32>(0)
  private let isDriverReady = Atomic<Bool>(false)

  /// `observer` hears of interrupts that are no queue's.
  init(
    doorbells: [Doorbell], interrupts: any VirtioInterrupts, worker: Worker,
    reports: DeviceReports, label: String, observer: (any RequestObserver)? = nil
  ) {
    self.doorbells = doorbells
    self.worker = worker
    self.interrupts = interrupts
    self.reports = reports
    self.label = label
    self.observer = observer
    ownWakes = doorbells.map { _ in Flag() }
  }

  /// Gives queue `index` a turn soon, if it is active.
  package func wake(queue index: Int) {
    ownWakes[index].value.store(true, ordering: .releasing)
    doorbells[index].event.raise()
  }

  /// Whether queue `index` was woken from here since the last call: then nobody need have rung.
  func takeWake(queue index: Int) -> Bool {
    ownWakes[index].value.exchange(false, ordering: .acquiring)
  }

  private final class Flag: Sendable {
    let value = Atomic(false)
  }

  /// Tells the driver that the configuration space changed (virtio 1.2, 2.5 and 2.9).
  package func configurationChanged() {
    generationValue.add(1, ordering: .sequentiallyConsistent)
    signalConfiguration()
  }

  private func signalConfiguration() {
    guard isReady else { return }
    let interrupt = interrupts.signalConfiguration()
    observer?.didInterrupt(interrupt)
  }

  /// Tells whoever runs the machine.
  package func report(_ kind: DeviceReports.Kind, _ text: String) {
    reports.report(kind, label, text)
  }

  /// Forgets all that was asked for, as a new device would have it, and counts on from `generation`.
  func clear(generation: UInt32 = 0) {
    for (doorbell, wake) in zip(doorbells, ownWakes) {
      doorbell.event.consume()
      wake.value.store(false, ordering: .relaxed)
    }
    generationValue.store(generation, ordering: .sequentiallyConsistent)
  }

  /// Changes with the configuration space.
  var generation: UInt32 { generationValue.load(ordering: .sequentiallyConsistent) }

  /// Whether a driver listens.
  var isReady: Bool { isDriverReady.load(ordering: .sequentiallyConsistent) }

  func setDriverReady(_ isReady: Bool) {
    isDriverReady.store(isReady, ordering: .sequentiallyConsistent)
  }

  /// Tells the driver that the device needs a reset, if there is one that listens.
  func needsReset() { signalConfiguration() }

  func interruptEvent(queue: Int) -> SharedEvent? { interrupts.event(queue: queue) }

  func forget() { interrupts.reset() }

  /// Tells the driver that requests of `queue` are done.
  package func requestsDone(queue: Int) -> DeviceInterrupt { interrupts.signal(queue: queue) }
}
