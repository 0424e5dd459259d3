import CLinux
import Glibc
import Synchronization

/// A thread that does what VCPUs must not wait for: it waits for descriptors and times, takes jobs,
/// and calls what belongs to each, one at a time.
///
/// The thread starts with the first thing to do. Its own lock is the last in the order of locks:
/// nothing is called under it.
package final class Worker: Sendable {
  /// When a watched file's handler is called.
  package enum Trigger: Sendable {
    /// Each time that something comes (`EPOLLET`).
    case edge
    /// For as long as something is there.
    case level
    /// Each time that something comes, there is room to write, or the other side goes.
    case socketEdge
  }

  private struct State {
    var handlers: [(@Sendable () -> Void)?] = []
    var timers: [Deadline] = []
    var jobs = Queue()
    var thread: HostThread?
    /// Until when the thread sleeps; 0 while it is awake, and will look by itself.
    var sleepsUntil: UInt64 = 0
    var isPaused = false
    /// Hears of the pause, once nothing is under way.
    var still: (@Sendable () -> Void)?
    var isEnding = false
    var hasEnded = false

    /// The time of timer `index`, or the end of all times.
    func time(_ index: Int) -> UInt64 { timers[index].time ?? .max }
  }

  private struct Deadline {
    let fire: @Sendable () -> Void
    var time: UInt64?
  }

  /// First in, first out.
  private struct Queue {
    var waiting: [@Sendable () -> Void] = []
    var next = 0

    mutating func take() -> (@Sendable () -> Void)? {
      guard next < waiting.count else { return nil }
      let job = waiting[next]
      next += 1
      if next == waiting.count {
        waiting.removeAll(keepingCapacity: true)
        next = 0
      }
      return job
    }
  }

  private enum Step {
    case call(@Sendable () -> Void)
    case wait(until: UInt64?)
    case end
  }

  private static let wakeTag = UInt64.max

  /// Starts a thread of that name.
  package typealias ThreadMaker =
    @Sendable (String, @escaping @Sendable () -> Void) throws(Errno) -> HostThread

  private let name: String
  private let makeThread: ThreadMaker
  private let poller: Poller
  private let wake: Event
  private let shouldStop = Atomic<Bool>(false)
  private let shared = Guarded(State())

  /// Makes one whose thread will be called `name`; how it starts is for tests to change.
  package init(
    name: String,
    makeThread: @escaping ThreadMaker = Worker.maker(ThreadFilters.own)
  ) throws(Errno) {
    self.name = name
    self.makeThread = makeThread
    poller = try Poller()
    wake = try Event()
    try poller.addEdges(wake.descriptor, tag: Self.wakeTag)
  }

  // MARK: Things to do

  /// Starts the thread, if it isn't there: for those who want to know now that there is none to be had.
  package func start() throws(Errno) {
    try shared.locked { (state) throws(Errno) in try startThread(&state) }
  }

  private func startThread(_ state: inout State) throws(Errno) {
    guard state.thread == nil, !state.isEnding else { return }
    Signal.kick.installInterruptingHandler()
    state.thread = try makeThread(name) { [self] in run() }
  }

  /// Calls `handler` each time that `event` is raised, which nobody has to take back. The event must
  /// stay until the thread has ended.
  package func watch(
    _ event: borrowing Event, _ handler: @escaping @Sendable () -> Void
  ) throws(Errno) {
    try watch(event.descriptor, handler)
  }

  /// Calls `handler` when something comes from `file`, or its other side closes it. Nothing is called
  /// for it any more once it is closed here. `place`, what this returned earlier, is for a file that
  /// follows such a one.
  @discardableResult
  package func watch(
    _ file: borrowing FileDescriptor, inPlaceOf place: Int? = nil, on trigger: Trigger = .edge,
    _ handler: @escaping @Sendable () -> Void
  ) throws(Errno) -> Int {
    try shared.locked { (state) throws(Errno) in
      guard !state.isEnding else { return place ?? 0 }
      try startThread(&state)
      let index =
        place ?? state.handlers.firstIndex { $0 == nil } ?? state.handlers.count
      if index == state.handlers.count { state.handlers.append(nil) }
      state.handlers[index] = handler
      switch trigger {
      case .edge: try poller.addEdges(file, tag: UInt64(index))
      case .socketEdge: try poller.addSocketEdges(file, tag: UInt64(index))
      case .level:
        guard try poller.add(file, tag: UInt64(index)) else { throw Errno.notPermitted }
      }
      return index
    }
  }

  /// Calls nothing any more for `file`, which has `place`.
  package func ignore(_ file: borrowing FileDescriptor, at place: Int) {
    poller.remove(file)
    shared.locked { state in
      if place < state.handlers.count { state.handlers[place] = nil }
    }
  }

  /// Does `job` after those that were posted before; it is done even if the thread is to end. Throws
  /// `ECANCELED` when it has been told to end.
  package func post(_ job: @escaping @Sendable () -> Void) throws(Errno) {
    let isAsleep = try shared.locked { (state) throws(Errno) in
      guard !state.isEnding else { throw Errno(ECANCELED) }
      try startThread(&state)
      state.jobs.waiting.append(job)
      return state.sleepsUntil > 0
    }
    if isAsleep { wake.raise() }
  }

  /// A timer of a worker's: calls somebody when a time has come.
  package struct Timer: Sendable {
    fileprivate let worker: Worker
    fileprivate let index: Int

    /// Calls once when `Clock.monotonicNanoseconds` has come to `deadline`, and not at the time that
    /// was set before; nil for not at all.
    package func set(_ deadline: UInt64?) throws(Errno) {
      try worker.set(index, deadline)
    }
  }

  /// Makes a timer that calls `fire`, which is not set.
  package func makeTimer(_ fire: @escaping @Sendable () -> Void) -> Timer {
    shared.locked { state in
      state.timers.append(Deadline(fire: fire))
      return Timer(worker: self, index: state.timers.count - 1)
    }
  }

  private func set(_ index: Int, _ time: UInt64?) throws(Errno) {
    let sleepsTooLong = try shared.locked { (state) throws(Errno) in
      guard state.timers.indices.contains(index) else { return false }
      if time != nil { try startThread(&state) }
      state.timers[index].time = time
      return time.map { $0 < state.sleepsUntil } ?? false
    }
    if sleepsTooLong { wake.raise() }
  }

  // MARK: The thread

  private func run() {
    // The thread that made this one may block signals, as those of libdispatch do.
    Signal.unblock([.kick])
    var arrived: UInt64?
    while true {
      let step = shared.waiting { state in
        state.sleepsUntil = 0
        if let tag = arrived.take() { Self.note(tag, &state) }
        return Self.next(&state)
      }
      switch step {
      case .call(let body): body()
      case .wait(let deadline): arrived = poller.next(until: deadline)
      case .end: break
      }
      if case .end = step { break }
    }
    shared.locked { $0.hasEnded = true }
    shared.wakeAll()
  }

  /// Puts what is to be done for a file behind the jobs: a pause may have come meanwhile.
  private static func note(_ tag: UInt64, _ state: inout State) {
    guard tag < UInt64(state.handlers.count), let handler = state.handlers[Int(tag)] else { return }
    state.jobs.waiting.append(handler)
  }

  /// What to do now; nil to wait for the end of a pause.
  private static func next(_ state: inout State) -> Step? {
    if state.isPaused && !state.isEnding {
      return state.still.take().map { .call($0) }
    }
    if let job = state.jobs.take() { return .call(job) }
    if state.isEnding { return .end }
    guard let earliest = state.timers.indices.min(by: { state.time($0) < state.time($1) }),
      let time = state.timers[earliest].time
    else {
      state.sleepsUntil = .max
      return .wait(until: nil)
    }
    guard time > Clock.monotonicNanoseconds else {
      state.timers[earliest].time = nil
      return .call(state.timers[earliest].fire)
    }
    state.sleepsUntil = time
    return .wait(until: time)
  }

  // MARK: Standing still

  /// Whether the thread is to end: for handlers that wait.
  package var isStopping: Bool { shouldStop.load(ordering: .acquiring) }

  /// Begins nothing new from now on, and calls `still` once when nothing is under way any more: on its
  /// thread, or at once if it has none. What comes meanwhile is done after `resume()`.
  package func pause(_ still: @escaping @Sendable () -> Void) {
    let isStill = shared.locked { state in
      state.isPaused = true
      guard state.thread != nil, !state.hasEnded else { return true }
      state.still = still
      return false
    }
    guard !isStill else { return still() }
    wake.raise()
    shared.wakeAll()
  }

  /// Goes on after a pause, or instead of one that has not come yet.
  package func resume() {
    shared.locked { state in
      state.isPaused = false
      state.still = nil
    }
    shared.wakeAll()
  }

  /// Ends the thread when its present handler has returned and the jobs are done, and waits for that.
  /// A handler that waits in a system call gets `EINTR`. Nothing is called any more after that.
  package func stop() {
    shouldStop.store(true, ordering: .releasing)
    let thread = shared.locked { state in
      state.isEnding = true
      defer { state.thread = nil }
      return state.thread
    }
    wake.raise()
    shared.wakeAll()
    if let thread {
      // A signal that comes just before a system call is lost on it: hence again and again.
      while !shared.waits(until: Clock.monotonicNanoseconds &+ 10_000_000, for: { $0.hasEnded }) {
        thread.send(.kick)
      }
      thread.join()
    }
    // They may hold those who hold this.
    let still = shared.locked { state in
      (state.handlers, state.timers) = ([], [])
      return state.still.take()
    }
    still?()
  }
}
