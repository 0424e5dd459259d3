import Host

/// Where VCPUs' threads wait while somebody looks at a machine that stands still.
final class Parking: @unchecked Sendable {
  // Sound as Sendable: the counts are only used inside the monitor.
  private let monitor = Monitor()
  private var running: Int
  private var parked = 0

  /// For `count` threads.
  init(count: Int) { running = count }

  /// Called by a VCPU's thread that found the phase `.paused`: waits until it is over.
  func park(_ control: RunControl) {
    monitor.locked {
      parked += 1
      monitor.wakeAll()
      while control.phase == .paused { monitor.wait() }
      parked -= 1
    }
  }

  /// Called by a VCPU's thread as its last act.
  func leave() {
    monitor.locked {
      running -= 1
      monitor.wakeAll()
    }
  }

  /// Waits until every thread has ended; false if that took longer than `nanoseconds`.
  func waitUntilEmpty(_ nanoseconds: UInt64) -> Bool {
    wait(nanoseconds) { running == 0 }
  }

  /// Waits until every thread is parked or has ended; false if that took longer than `nanoseconds`.
  func waitUntilStill(_ nanoseconds: UInt64) -> Bool {
    wait(nanoseconds) { parked == running }
  }

  private func wait(_ nanoseconds: UInt64, until condition: () -> Bool) -> Bool {
    let deadline = Clock.monotonicNanoseconds + nanoseconds
    return monitor.locked {
      while !condition() {
        if !monitor.wait(until: deadline) { return condition() }
      }
      return true
    }
  }

  /// Lets all threads look at the phase again.
  func wake() {
    monitor.locked { monitor.wakeAll() }
  }
}
