import Glibc

/// Gets a thread out of its system calls when a time is over, by `Signal.kick` again and again.
public final class Alarm: @unchecked Sendable {
  // Sound as Sendable: the flags are only used inside the monitor.
  private let monitor = Monitor()
  private var isDone = false
  private var hasFired = false
  private var thread: HostThread?

  /// Sets an alarm for the calling thread in `seconds`; `fire` is called before each kick, on a thread
  /// of the alarm's own.
  public init(seconds: Int, _ fire: @escaping @Sendable () -> Void) throws(Errno) {
    Signal.kick.installInterruptingHandler()
    Signal.unblock([.kick])
    let target = pthread_self()
    let end = Clock.monotonicNanoseconds &+ UInt64(seconds) &* 1_000_000_000
    thread = try HostThread(name: "alarm") { [self] in
      monitor.locked {
        while !isDone && Clock.monotonicNanoseconds < end { _ = monitor.wait(until: end) }
        while !isDone {
          hasFired = true
          fire()
          pthread_kill(target, Signal.kick.number)
          _ = monitor.wait(until: Clock.monotonicNanoseconds &+ 50_000_000)
        }
      }
    }
  }

  /// Whether the time was over before `cancel()`.
  public var isOver: Bool { monitor.locked { hasFired } }

  /// Ends it; to be called once, by the thread it was set for.
  public func cancel() {
    monitor.locked {
      isDone = true
      monitor.wakeAll()
    }
    thread?.join()
    thread = nil
  }
}
