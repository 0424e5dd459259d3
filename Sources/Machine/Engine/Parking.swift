import Host

/// Where VCPUs' threads wait while the machine stands still.
final class Parking: @unchecked Sendable {
  // Sound as Sendable: the counts are only used inside the monitor.
  private let monitor = Monitor()
  private var running = 0
  private var parked = 0

  /// Called for a VCPU's thread before it starts.
  func enter() { monitor.locked { running += 1 } }

  /// Called by a VCPU's thread between two entries into the guest: waits as long as `control` has it
  /// wait, and returns whether it is to go on.
  func pass(_ control: RunControl) -> Bool {
    guard !control.orders.isEmpty else { return true }
    return monitor.locked {
      parked += 1
      defer { parked -= 1 }
      monitor.wakeAll()
      control.event.raise()
      while true {
        let orders = control.orders
        if !orders.isDisjoint(with: [.end, .leave]) { return false }
        if orders.isEmpty { return true }
        monitor.wait()
      }
    }
  }

  /// Called by a VCPU's thread as its last act, or for one that could not be started.
  func leave() {
    monitor.locked {
      running -= 1
      monitor.wakeAll()
    }
  }

  /// Whether every thread waits here or has ended.
  var isStill: Bool { monitor.locked { parked == running } }

  /// Waits until every thread has ended; false if that took longer than `nanoseconds`.
  func waitUntilEmpty(_ nanoseconds: UInt64) -> Bool {
    wait(nanoseconds) { running == 0 }
  }

  /// Waits until every thread waits here or has ended; false if that took longer than `nanoseconds`.
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

  /// Lets all threads look at their orders again.
  func wake() {
    monitor.locked { monitor.wakeAll() }
  }
}
