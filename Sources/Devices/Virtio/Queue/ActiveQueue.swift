import Synchronization

/// A queue at work, from the driver's start to a reset: what a device serves.
package final class ActiveQueue: @unchecked Sendable {
  // Sound as Sendable: only who has changed `state` to `serving` touches the rest.

  private enum State: UInt8, AtomicRepresentable {
    /// Nobody has the queue.
    case idle
    /// Its thread works on it.
    case serving
    /// The same, and it is to stop.
    case stopping
    /// It is over.
    case stopped
  }

  /// At most so many requests are done before the driver is told.
  private static let batch = 32

  /// At most so many requests are done in a turn: a guest can write its disks so that reading them
  /// makes the ring go on for ever.
  private static let mostInTurn = 1024

  /// What the request that is handed back next was, for those who watch.
  package var request: DeviceRequest?

  /// The queue's number.
  package let index: Int
  /// What the driver and the device agreed on.
  package let features: VirtioFeatures

  private let ring: VirtQueue
  private let signals: any QueueSignals
  private let counters: QueueCounters
  private let state = Atomic<State>(.idle)
  private let isHeld = Atomic<Bool>(false)
  private var chain = DescriptorChain()
  private var takenInTurn = 0

  /// Puts `ring` to work for a driver that is told by `signals`.
  package convenience init(
    _ ring: VirtQueue, features: VirtioFeatures, signals: any QueueSignals
  ) {
    self.init(ring, features: features, signals: signals, counters: QueueCounters())
  }

  init(
    _ ring: VirtQueue, features: VirtioFeatures, signals: any QueueSignals, counters: QueueCounters
  ) {
    self.ring = ring
    self.features = features
    self.signals = signals
    self.counters = counters
    index = ring.index
  }

  // MARK: Turns

  /// Runs `body` unless the queue is over, and returns whether it has to stop now.
  package func takeTurn(_ body: () -> Void) -> Bool {
    guard state.compareExchange(expected: .idle, desired: .serving, ordering: .acquiring).exchanged
    else { return false }
    takenInTurn = 0
    body()
    if takenInTurn >= Self.mostInTurn { signals.wake(queue: index) }
    if state.compareExchange(expected: .serving, desired: .idle, ordering: .releasing).exchanged {
      return false
    }
    state.store(.stopped, ordering: .releasing)
    return true
  }

  /// Ends the queue, and returns whether it is over at once. Otherwise the turn that goes on comes
  /// back with true, after the request that it is at. Only one of all who ask is told that it is over.
  @discardableResult
  package func stop() -> Bool {
    while true {
      let idle = state.compareExchange(
        expected: .idle, desired: .stopped, ordering: .acquiringAndReleasing)
      if idle.exchanged { return true }
      let busy = state.compareExchange(
        expected: .serving, desired: .stopping, ordering: .acquiringAndReleasing)
      if busy.exchanged || busy.original != .idle { return false }
    }
  }

  /// Whether the turn is to end: somebody waits for it, or it had its share.
  package var shouldStop: Bool { takenInTurn >= Self.mostInTurn || isAwaited }

  /// Whether a reset, a pause or the end of the run waits for the turn.
  package var isAwaited: Bool {
    state.load(ordering: .relaxed) == .stopping || isHeld.load(ordering: .relaxed)
  }

  /// Ends the turn that goes on, if one does, after the request that it is at; or takes that back.
  package func hold(_ isHeld: Bool) { self.isHeld.store(isHeld, ordering: .relaxed) }

  /// Where the ring goes on; known while no turn goes on.
  package var position: VirtQueue.Position { ring.position }

  /// Gives the queue another turn after this one.
  package func askForTurn() { signals.wake(queue: index) }

  /// How many descriptors the queue has.
  package var size: Int { Int(ring.size) }

  /// What was done; known once the queue is over.
  package var statistics: RequestStatistics { counters.recorder.statistics }

  /// Notes that a doorbell woke the device; to be called in a turn.
  package func countDoorbell() { counters.recorder.countDoorbell() }

  // MARK: Requests

  /// Does all requests that are there, and those that come meanwhile: `body` gets each one's buffers
  /// and returns how many bytes it wrote into them. The driver hears of a batch at a time.
  package func drain(_ body: (inout DescriptorChain) throws(RingFault) -> UInt32) throws(RingFault)
  {
    ring.silenceDoorbell()
    while true {
      var count = 0
      while count < Self.batch, try take(&chain) {
        let head = chain.head
        let written = try body(&chain)
        complete(head, written: written)
        count += 1
      }
      flush()
      if shouldStop { return }
      if count < Self.batch {
        guard ring.awaitDoorbell() else { return }
        ring.silenceDoorbell()
      }
    }
  }

  /// Takes the next request; false if there is none or the turn is to end.
  package func take(_ chain: inout DescriptorChain) throws(RingFault) -> Bool {
    guard !shouldStop, try ring.next(&chain) else { return false }
    takenInTurn += 1
    counters.recorder.statistics.deepest = max(
      counters.recorder.statistics.deepest ?? 0, ring.depth)
    counters.recorder.find()
    return true
  }

  /// Notes that a request begins now for which buffers were taken before.
  package func begin() { counters.recorder.begin() }

  /// Hands the request back that starts with descriptor `head`: `written` of its bytes were written.
  package func complete(_ head: UInt16, written: UInt32) {
    stage(head, written: written)
    ring.publish()
  }

  /// The same, but the driver sees it with the next `publish()`: requests that belong together.
  package func stage(_ head: UInt16, written: UInt32) {
    ring.stage(head, written: written)
    counters.finish(request)
    request = nil
  }

  /// Shows the driver all that was staged, at once.
  package func publish() { ring.publish() }

  /// Tells the driver of what was handed back, if it wants to hear.
  package func flush() {
    counters.recorder.endBatch()
    guard ring.takeInterruptDecision() else { return }
    counters.recorder.statistics.interrupts? &+= 1
    let interrupt = signals.requestsDone(queue: index)
    counters.recorder.observer?.didInterrupt(interrupt)
  }

  /// Tells the driver that new requests need no doorbell for now.
  package func silenceDoorbell() { ring.silenceDoorbell() }

  /// Asks for a doorbell with the next request; true if one has come meanwhile.
  package func awaitDoorbell() -> Bool { ring.awaitDoorbell() }
}

/// A queue's numbers over all its lives. Written by who has the queue, read when all threads ended.
final class QueueCounters: @unchecked Sendable {
  // Sound as Sendable: see above; turns follow one another with acquire and release.
  var recorder = RequestRecorder()
  /// What the queue is; nil until a driver sets it up.
  private(set) var role: VirtioQueueRole?
  /// The bytes so far, for who looks while the queue is at work.
  private let bytesRead = Atomic<UInt64>(0), bytesWritten = Atomic<UInt64>(0)

  /// Goes on for a driver to whom the queue is `role`. Nobody has the queue.
  func start(_ role: VirtioQueueRole, _ observation: DeviceObservation?, label: String) {
    if !role.isRead { recorder.statistics.bytesRead = nil }
    if !role.isWritten { recorder.statistics.bytesWritten = nil }
    guard role.name.description != self.role?.name.description else { return }
    self.role = role
    recorder.observe(observation, label: label + " " + role.name.description)
  }

  /// A request is done.
  func finish(_ request: DeviceRequest?) {
    recorder.finish(request)
    guard let request else { return }
    switch request.flow {
    case .toGuest: bytesRead.add(request.bytes, ordering: .relaxed)
    case .fromGuest: bytesWritten.add(request.bytes, ordering: .relaxed)
    case .none: break
    }
  }

  /// What was read and written so far; from any thread.
  var traffic: DeviceTraffic {
    DeviceTraffic(
      read: bytesRead.load(ordering: .relaxed), written: bytesWritten.load(ordering: .relaxed))
  }
}
