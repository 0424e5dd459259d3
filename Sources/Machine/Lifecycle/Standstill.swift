import Devices
import Host
import Synchronization

/// Brings a machine to stand still, VCPUs first and then all who work for devices, and lets it go on.
///
/// Nobody waits in here: the event loop calls `advance()` whenever something may have changed.
final class Standstill {
  private enum State {
    /// The machine runs.
    case moving
    /// VCPUs are to stop.
    case stopping
    /// VCPUs wait; workers finish what they are at.
    case draining
    /// Nothing is in flight.
    case still
  }

  private let control: RunControl
  private let workers: [any Pausable]
  private var state = State.moving
  private var nextKick: UInt64 = 0
  private let busy = Busy()

  /// How many workers have not said that they are still.
  private final class Busy: Sendable {
    let count = Atomic(0)
  }

  /// A kick that comes just before a thread waits in a system call is lost: so often it is repeated, in
  /// nanoseconds.
  private static let kickInterval: UInt64 = 10_000_000

  init(_ control: RunControl, workers: [any Pausable]) {
    self.control = control
    self.workers = workers
  }

  /// Whether nothing moves.
  var isStill: Bool { state == .still }
  /// Whether the machine runs, and nobody wants it to stop.
  var isMoving: Bool { state == .moving }

  /// When `advance` wants to be called, whatever happens.
  var deadline: UInt64? { state == .stopping ? nextKick : nil }

  /// Begins to stop the machine, if it isn't stopping already.
  func begin(_ threads: VCPUThreads) {
    guard state == .moving else { return }
    state = .stopping
    control.give(.hold)
    kick(threads)
  }

  private func kick(_ threads: VCPUThreads) {
    threads.kick()
    nextKick = Clock.monotonicNanoseconds &+ Self.kickInterval
  }

  /// Goes on with that as far as it can; returns whether the machine stands still.
  func advance(_ threads: VCPUThreads) -> Bool {
    if state == .stopping {
      if threads.isStill {
        state = .draining
        drain()
      } else if Clock.monotonicNanoseconds >= nextKick {
        kick(threads)
      }
    }
    if state == .draining, busy.count.load(ordering: .sequentiallyConsistent) == 0 {
      state = .still
    }
    return state == .still
  }

  private func drain() {
    busy.count.store(workers.count, ordering: .sequentiallyConsistent)
    for worker in workers {
      worker.pause { [busy, control] in
        busy.count.subtract(1, ordering: .sequentiallyConsistent)
        control.event.raise()
      }
    }
  }

  /// Lets workers go on, and takes the order to wait back: VCPUs may run.
  func end() {
    if state == .draining || state == .still {
      for worker in workers { worker.resume() }
    }
    state = .moving
    control.withdraw(.hold)
  }
}
