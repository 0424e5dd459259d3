import CLinux
import Glibc
import Synchronization

/// What a thread is for in a process that runs guests, which decides what it may ask of the kernel.
package enum ThreadRole: String, CaseIterable, Sendable {
  /// Runs the event loop, and makes machines and threads.
  case loop
  /// Runs a VCPU.
  case vcpu
  /// Works for devices and clients.
  case worker
}

/// What threads are held to: all of a process that confines itself, or, in a process that is somebody
/// else's, those that a machine makes, and theirs.
package final class ThreadFilters: Sendable {
  private let make: @Sendable (ThreadRole) -> SystemCallFilter
  /// Few: a dictionary's type would cost more than looking (docs/performance.md).
  private let made = Mutex<[Made]>([])
  /// Starts threads that aren't held to anything; nil where the whole process is.
  private let free: Spawner?

  private struct Made {
    let role: ThreadRole
    let filter: SystemCallFilter
  }

  private init(_ free: Spawner?, _ make: @escaping @Sendable (ThreadRole) -> SystemCallFilter) {
    (self.free, self.make) = (free, make)
  }

  /// That for threads of this role, made when it is first asked for.
  func filter(for role: ThreadRole) -> SystemCallFilter {
    made.withLock { made in
      for made in made where made.role == role { return made.filter }
      let filter = make(role)
      made.append(Made(role: role, filter: filter))
      return filter
    }
  }

  /// Who starts threads for those that may do less.
  var spawner: Spawner? { free ?? Spawner.ofProcess }

  /// Holds the calling thread, which has just begun, to what its role allows. Where that fails it has its
  /// maker's.
  func hold(_ role: ThreadRole) {
    if free != nil {
      Self.own = self
      clinux_no_new_rights()
    } else if role == .loop {
      // Its maker's.
      return
    }
    try? filter(for: role).install()
  }

  // MARK: A whole process

  private static let process = Mutex<ThreadFilters?>(nil)

  /// Has threads of this process that start from now on install what `make` gives for their role.
  package static func set(_ make: @escaping @Sendable (ThreadRole) -> SystemCallFilter) {
    process.withLock { $0 = ThreadFilters(nil, make) }
  }

  /// Those that the calling thread's threads have.
  package static var current: ThreadFilters? { own ?? process.withLock { $0 } }

  // MARK: Some threads

  /// For threads that are started while `with` lasts, by them, and so on; what those have others do isn't
  /// held to anything. Made once, by a thread that isn't either: it stays.
  package convenience init(
    ofSome make: @escaping @Sendable (ThreadRole) -> SystemCallFilter
  ) throws(Errno) {
    self.init(try Spawner(), make)
    // Threads have it to their ends.
    _ = unsafe Unmanaged.passRetained(self)
  }

  private static let key: pthread_key_t = {
    var key = pthread_key_t()
    // There are a thousand; without one, no thread has any of its own.
    return unsafe pthread_key_create(&key, nil) == 0 ? key : .max
  }()

  /// Those that the calling thread's threads have, and not the whole process.
  package private(set) static var own: ThreadFilters? {
    get {
      // None but what is set below, which stays.
      unsafe pthread_getspecific(key).map {
        unsafe Unmanaged<ThreadFilters>.fromOpaque($0).takeUnretainedValue()
      }
    }
    set {
      let pointer = unsafe newValue.map { unsafe Unmanaged.passUnretained($0).toOpaque() }
      _ = unsafe pthread_setspecific(key, pointer)
    }
  }

  /// Has threads that `body` starts held to these.
  package func with<Value, Failure>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
    let before = Self.own
    Self.own = self
    defer { Self.own = before }
    return try body()
  }

  /// Calls `body` on a thread that isn't held to anything, if the calling one is held to some thread's, and
  /// waits for it.
  static func freely<Value: Sendable>(
    _ body: @escaping @Sendable () throws(Errno) -> Value
  ) throws(Errno) -> Value {
    guard let spawner = own?.free else { return try body() }
    let result = Mutex<Result<Value, Errno>>(.failure(.noMemory))
    try spawner.start("errand", nil, nil) {
      let made = Result { () throws(Errno) in try body() }
      result.withLock { $0 = made }
    }.join()
    return try result.withLock { $0 }.get()
  }

  /// Starts `body` on a thread called `name` that isn't held to anything, whatever the calling one is.
  package func startFree(
    _ name: String, _ body: @escaping @Sendable () -> Void
  ) throws(Errno) -> HostThread {
    guard let free else { return try HostThread(direct: name, nil, nil, body) }
    return try free.start(name, nil, nil, body)
  }
}

extension Worker {
  /// Its thread is held to what threads of the worker's maker are, whoever gives it the first thing to do.
  package static func maker(_ filters: ThreadFilters?) -> ThreadMaker {
    { (name, body) throws(Errno) in
      try HostThread.start(name: name, filters: filters ?? .current, body)
    }
  }
}
