/// Calls somebody when a time has come: a timer for those that few guests need.
///
/// Its thread starts with the first time that is set.
public final class TimerThread: @unchecked Sendable {
  // Sound as Sendable: everything that changes is used inside the monitor.
  private let monitor = Monitor()
  private let name: String
  private let fire: @Sendable () -> Void
  private var deadline: UInt64?
  private var isEnding = false
  private var thread: HostThread?

  /// A timer whose thread will be called `name` and calls `fire`.
  public init(name: String, _ fire: @escaping @Sendable () -> Void) {
    self.name = name
    self.fire = fire
  }

  /// Calls once when `Clock.monotonicNanoseconds` has come to `deadline`, and not at the time that was
  /// set before; nil for not at all. Without a thread to be had nothing is called.
  public func set(_ deadline: UInt64?) {
    monitor.locked {
      guard !isEnding, deadline != self.deadline else { return }
      self.deadline = deadline
      if thread == nil, deadline != nil {
        thread = try? HostThread(name: name) { [self] in
          while waitForDeadline() { fire() }
        }
      }
      monitor.wakeAll()
    }
  }

  /// Waits until the time has come; false if it never will.
  private func waitForDeadline() -> Bool {
    monitor.locked {
      while !isEnding {
        guard let deadline else {
          monitor.wait()
          continue
        }
        if Clock.monotonicNanoseconds >= deadline {
          self.deadline = nil
          return true
        }
        _ = monitor.wait(until: deadline)
      }
      return false
    }
  }

  /// Ends the thread, and waits for that. Nothing is called any more.
  public func stop() {
    let thread = monitor.locked {
      isEnding = true
      monitor.wakeAll()
      defer { self.thread = nil }
      return self.thread
    }
    thread?.join()
  }
}
