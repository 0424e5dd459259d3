import Glibc
import Host
import KVM
import TestSupport

/// Ends a VCPU's run that takes for ever, so that a guest that waits in vain fails its test.
final class Watchdog: @unchecked Sendable {
  // Sound as Sendable: the flags are only used inside the monitor.
  private let monitor = Monitor()
  private var isDone = false
  private var hasFired = false
  private var thread: HostThread?

  /// Watches over the runs of `vcpu` on the calling thread.
  init(_ vcpu: VCPU, _ deadline: Deadline = Deadline(seconds: 20)) throws {
    Signal.kick.installInterruptingHandler()
    // The tests' threads are libdispatch's, which block all signals.
    Signal.unblock([.kick])
    let runner = pthread_self()
    thread = try HostThread.start(name: "watchdog") { [self] in
      monitor.locked {
        while !isDone && !deadline.isOver { _ = monitor.wait(until: deadline.nanoseconds) }
        guard !isDone else { return }
        hasFired = true
        vcpu.requestExit()
        pthread_kill(runner, Signal.kick.number)
      }
    }
  }

  /// Whether the time was up.
  var isOver: Bool { monitor.locked { hasFired } }

  /// To be called when the runs are over.
  func stop() {
    monitor.locked {
      isDone = true
      monitor.wakeAll()
    }
    thread?.join()
  }
}
