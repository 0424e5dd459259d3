import CLinux
import Glibc
import Synchronization

/// A thread that waits for descriptors and calls what is to be done for each: where devices do work
/// that a VCPU must not wait for.
///
/// The thread starts with the first descriptor, and each handler runs on it, one at a time.
public final class WorkLoop: Sendable {
  private struct State {
    var handlers: [@Sendable () -> Void] = []
    var thread: HostThread?
    var hasEnded = false
  }

  private static let stopTag = UInt64.max

  private let name: String
  private let poller: Poller
  private let stopping: Event
  private let shouldStop = Atomic<Bool>(false)
  private let state = Mutex(State())
  private let ended = Monitor()

  /// Makes a loop whose thread will be called `name`.
  public init(name: String) throws(Errno) {
    self.name = name
    poller = try Poller()
    stopping = try Event()
    _ = try poller.add(stopping.descriptor, tag: Self.stopTag)
  }

  /// Calls `handler` each time that `event` is raised, which nobody has to take back. The event must
  /// stay until the loop has stopped.
  public func watch(
    _ event: borrowing Event, _ handler: @escaping @Sendable () -> Void
  ) throws(Errno) {
    try watch(event.descriptor, handler)
  }

  /// Calls `handler` each time that something comes to `file`, not while something is there. The file
  /// must stay until the loop has stopped.
  public func watch(
    _ file: borrowing FileDescriptor, _ handler: @escaping @Sendable () -> Void
  ) throws(Errno) {
    try state.withLock { (state) throws(Errno) in
      guard !shouldStop.load(ordering: .relaxed) else { return }
      if state.thread == nil {
        Signal.kick.installInterruptingHandler()
        state.thread = try HostThread(name: name) { [self] in run() }
      }
      state.handlers.append(handler)
      try poller.addEdges(file, tag: UInt64(state.handlers.count - 1))
    }
  }

  private func run() {
    // The thread that made this one may block signals, as those of libdispatch do.
    Signal.unblock([.kick])
    while !shouldStop.load(ordering: .acquiring) {
      guard let tag = poller.next(milliseconds: nil), tag != Self.stopTag else { continue }
      let handler = state.withLock { state in
        tag < UInt64(state.handlers.count) ? state.handlers[Int(tag)] : nil
      }
      handler?()
    }
    ended.locked {
      state.withLock { $0.hasEnded = true }
      ended.wakeAll()
    }
  }

  /// Ends the thread when its present handler has returned, and waits for that. A handler that waits
  /// in a system call gets `EINTR`. Nothing is called any more after that.
  public func stop() {
    shouldStop.store(true, ordering: .releasing)
    stopping.raise()
    let thread = state.withLock { state in
      defer { state.thread = nil }
      return state.thread
    }
    if let thread {
      ended.locked {
        // A signal that comes just before a system call is lost on it: hence again and again.
        while !state.withLock({ $0.hasEnded }) {
          thread.send(.kick)
          _ = ended.wait(until: Clock.monotonicNanoseconds &+ 10_000_000)
        }
      }
      thread.join()
    }
    // They may hold those who hold the loop.
    state.withLock { $0.handlers = [] }
  }
}
