import Glibc

/// Gets a thread out of its system calls when its time is over, by `Signal.kick` again and again.
///
/// The time is the thread's own processor time, which a guest that never leaves uses up and a busy
/// host takes from nobody. A thread that uses none is told after twenty times as long.
package final class Alarm: @unchecked Sendable {
  // Sound as Sendable: the flags are only used inside the monitor.
  private let monitor = Monitor()
  private var isDone = false
  private var hasFired = false
  private var thread: HostThread?

  /// Sets an alarm for the calling thread after `seconds` of its processor time; `fire` is called
  /// before each kick, on a thread of the alarm's own. Corresponds to `pthread_getcpuclockid(3)`.
  package init(seconds: Int, _ fire: @escaping @Sendable () -> Void) throws(Errno) {
    Signal.kick.installInterruptingHandler()
    Signal.unblock([.kick])
    let target = pthread_self()
    var clock = clockid_t()
    let error = unsafe pthread_getcpuclockid(target, &clock)
    guard error == 0 else { throw Errno(error) }
    let limit = UInt64(seconds) &* 1_000_000_000
    let (start, used) = (Clock.monotonicNanoseconds, Self.nanoseconds(of: clock))
    thread = try HostThread.start(name: "alarm") { [self, clock] in
      monitor.locked {
        while !isDone {
          let spent = Self.nanoseconds(of: clock) &- used
          let now = Clock.monotonicNanoseconds
          guard spent < limit, now &- start < limit &* 20 else { break }
          // It can't use up what is left any sooner.
          _ = monitor.wait(until: now &+ (limit - spent))
        }
        while !isDone {
          hasFired = true
          fire()
          pthread_kill(target, Signal.kick.number)
          _ = monitor.wait(until: Clock.monotonicNanoseconds &+ 50_000_000)
        }
      }
    }
  }

  private static func nanoseconds(of clock: clockid_t) -> UInt64 {
    var time = timespec()
    // The thread whose clock it is outlives the alarm, which it cancels.
    guard unsafe clock_gettime(clock, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Whether the time was over before `cancel()`.
  package var isOver: Bool { monitor.locked { hasFired } }

  /// Ends it; to be called once, by the thread it was set for.
  package func cancel() {
    monitor.locked {
      isDone = true
      monitor.wakeAll()
    }
    thread?.join()
    thread = nil
  }
}
