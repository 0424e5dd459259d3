import Synchronization

/// Starts threads for those that may do less than what they start: a thread's filter is its maker's, too.
final class Spawner: Sendable {
  // Set once, before there are other threads.
  private nonisolated(unsafe) static var started: Spawner?
  /// That of a process that is confined as a whole.
  static var ofProcess: Spawner? { unsafe started }

  private let job = Mutex<(@Sendable () -> Void)?>(nil)
  private let isWanted: Event
  private let isDone: Event
  /// Held by who has a thread started.
  private let turn = Mutex(())

  /// Starts the thread that starts threads, which may do what the calling one may.
  init() throws(Errno) {
    isWanted = try Event()
    isDone = try Event()
    try HostThread(direct: "spawner", nil, nil) { self.run() }.detach()
  }

  /// Starts that of a process that is confined as a whole.
  static func start() throws(Errno) {
    let spawner = try Spawner()
    unsafe started = spawner
  }

  private func run() {
    while true {
      while !isWanted.descriptor.isReadable(within: -1) {}
      isWanted.consume()
      let job = job.withLock { job in
        defer { job = nil }
        return job
      }
      job?()
      isDone.raise()
    }
  }

  /// Runs `job`, which starts a thread, on the one that may start any. Whoever asks may hold locks: that
  /// thread takes none of them.
  private func perform(_ job: @escaping @Sendable () -> Void) {
    turn.withLock { _ in
      self.job.withLock { $0 = job }
      isWanted.raise()
      while !isDone.descriptor.isReadable(within: -1) {}
      isDone.consume()
    }
  }

  /// Has a thread started.
  func start(
    _ name: String, _ role: ThreadRole?, _ filters: ThreadFilters?,
    _ body: @escaping @Sendable () -> Void
  ) throws(Errno) -> HostThread {
    let made = Mutex<Result<HostThread, Errno>>(.failure(.noMemory))
    perform {
      let result = Result { () throws(Errno) in try HostThread(direct: name, role, filters, body) }
      made.withLock { $0 = result }
    }
    return try made.withLock { $0 }.get()
  }
}

extension HostThread {
  /// Starts `body` on a new thread called `name` (15 bytes of it show in `ps`), which may do what `role`
  /// allows where `filters` are, whatever the calling thread may.
  package static func start(
    name: String, role: ThreadRole = .worker, filters: ThreadFilters? = .current,
    _ body: @escaping @Sendable () -> Void
  ) throws(Errno) -> HostThread {
    guard role == .worker, let spawner = filters?.spawner else {
      return try HostThread(direct: name, role, filters, body)
    }
    return try spawner.start(name, role, filters, body)
  }
}
