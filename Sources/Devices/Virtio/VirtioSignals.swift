import Synchronization

/// How a transport tells the driver of something.
public protocol VirtioInterrupts: AnyObject, Sendable {
  /// Requests of `queue` are done. Called by the queue's thread.
  func signal(queue: Int)
  /// The configuration changed, or the device needs a reset. Called by any thread; must not call the
  /// device back.
  func signalConfiguration()
  /// Forgets what was told: the device has been reset. Called by any thread.
  func reset()
}

/// What a device can ask of those around it, from any thread.
public final class VirtioSignals: Sendable {
  /// One for each queue.
  public let doorbells: [Doorbell]
  private let interrupts: any VirtioInterrupts
  private let generationValue = Atomic<UInt32>(0)
  private let isDriverReady = Atomic<Bool>(false)

  init(doorbells: [Doorbell], interrupts: any VirtioInterrupts) {
    self.doorbells = doorbells
    self.interrupts = interrupts
  }

  /// Gives queue `index` a turn soon, if it is active.
  public func wake(queue index: Int) { doorbells[index].event.raise() }

  /// Tells the driver that the configuration space changed (virtio 1.2, 2.5 and 2.9).
  public func configurationChanged() {
    generationValue.add(1, ordering: .sequentiallyConsistent)
    if isDriverReady.load(ordering: .sequentiallyConsistent) { interrupts.signalConfiguration() }
  }

  /// Changes with the configuration space.
  var generation: UInt32 { generationValue.load(ordering: .sequentiallyConsistent) }

  func setDriverReady(_ isReady: Bool) {
    isDriverReady.store(isReady, ordering: .sequentiallyConsistent)
  }

  /// Tells the driver that the device needs a reset, if there is one that listens.
  func needsReset() {
    if isDriverReady.load(ordering: .sequentiallyConsistent) { interrupts.signalConfiguration() }
  }

  func forget() { interrupts.reset() }

  func requestsDone(queue: Int) { interrupts.signal(queue: queue) }
}
