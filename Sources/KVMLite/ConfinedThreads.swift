import Host
import Sandbox
import Synchronization

/// The threads that machines have in a process of somebody else's: what they need of the kernel for that,
/// they may, and no more.
///
/// A thread that they start has their filter, too, and so would one of Swift's pool: tasks are woken, and
/// the user's closures called, by two threads that aren't confined.
enum ConfinedThreads {
  private static let filters: ThreadFilters? = {
    guard HostEnvironment.variable("KVMLITE_SANDBOX") != "off" else { return nil }
    let process = LockHolder.currentProcess
    return try? ThreadFilters(ofSome: { SystemCalls.libraryFilter(for: $0, process: process) })
  }()

  /// Confines the threads that `body` starts, and theirs.
  static func with<Value, Failure>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
    guard let filters else { return try body() }
    return try filters.with(body)
  }

  /// Starts a thread that runs a machine.
  static func start(_ name: String, _ body: @escaping @Sendable () -> Void) throws(Errno) {
    try HostThread.start(name: name, role: .loop, filters: filters, body).detach()
  }

  // MARK: Free ones

  private static let waker = makeFree("waker")
  private static let teller = makeFree("teller")

  private static func makeFree(_ name: String) -> Worker? {
    guard let filters else { return nil }
    return try? Worker(name: name) { (name, body) throws(Errno) in
      try filters.startFree(name, body)
    }
  }

  /// Calls `body`, which resumes tasks and waits for nothing.
  static func wake(_ body: @escaping @Sendable () -> Void) { call(body, by: waker) }

  /// Calls `body`, which may be the user's, after those of earlier calls.
  static func tell(_ body: @escaping @Sendable () -> Void) { call(body, by: teller) }

  /// Waits until what was told is.
  static func finishTelling() {
    let isDone = Guarded(false)
    tell {
      isDone.locked { $0 = true }
      isDone.wakeAll()
    }
    isDone.waiting { $0 ? () : nil }
  }

  private static func call(_ body: @escaping @Sendable () -> Void, by worker: Worker?) {
    guard let worker, (try? worker.post(body)) != nil else { return body() }
  }
}
