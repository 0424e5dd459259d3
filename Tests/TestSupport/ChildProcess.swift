import CLinux
import Foundation
import Glibc

/// A program as a user runs it: what it reads, what it prints, how it ends.
///
/// Nothing here waits for a time: every wait is for output or the end, and a deadline kills the
/// program and throws. It has a process group of its own, so that a test sees whatever it leaves.
package final class ChildProcess {
  /// What the program's standard input is.
  package enum Input {
    /// /dev/null.
    case null
    /// Not open at all.
    case closed
    /// A pipe that holds these bytes and then ends.
    case bytes([UInt8])
    /// The file of that path.
    case file(String)
    /// A pipe that stays open for `type`.
    case pipe
  }

  /// How a program ended.
  package enum End: Equatable, Sendable {
    /// By itself, with a status.
    case exited(Int32)
    /// By a signal.
    case killed(Int32)
  }

  /// Everything it wrote to its standard output, or its terminal, so far.
  package private(set) var output: [UInt8] = []
  /// Everything it wrote to its standard error so far.
  package private(set) var errors: [UInt8] = []
  /// Its process ID, which is also its process group.
  package let identifier: pid_t

  private let name: String
  private let deadline: Deadline
  private var input: Int32 = -1
  private var outputEnd: Int32 = -1
  private var errorEnd: Int32 = -1
  // Readable once it has ended (pidfd_open(2)).
  private var lifeEnd: Int32 = -1
  private var pendingInput: [UInt8] = []
  private var isReadingOutput = true
  private var closesInput = false
  private var end: End?
  private let isOnTerminal: Bool

  /// Starts `executable` with pipes for its output.
  package init(
    _ executable: String, _ arguments: [String], input: Input = .null,
    environment: [String: String] = [:], deadline: Deadline = Deadline()
  ) throws {
    signal(SIGPIPE, SIG_IGN)
    name = ([executable] + arguments).joined(separator: " ")
    self.deadline = deadline
    isOnTerminal = false
    var spawner = Spawner()
    defer { spawner.finish() }
    switch input {
    case .null: spawner.open("/dev/null", O_RDONLY, as: 0)
    case .closed: spawner.close(0)
    case .file(let path): spawner.open(path, O_RDONLY, as: 0)
    case .bytes(let bytes):
      self.input = try spawner.pipe(to: 0)
      pendingInput = bytes
      closesInput = true
    case .pipe: self.input = try spawner.pipe(to: 0)
    }
    outputEnd = try spawner.pipe(from: 1)
    errorEnd = try spawner.pipe(from: 2)
    identifier = try spawner.start(executable, arguments, environment, isSessionLeader: false)
    lifeEnd = clinux_pidfd_open(identifier)
  }

  /// Starts `executable` in a session of its own, with the terminal at `terminal` for everything.
  package init(
    _ executable: String, _ arguments: [String], terminal: TestTerminal,
    environment: [String: String] = [:], deadline: Deadline = Deadline()
  ) throws {
    name = ([executable] + arguments).joined(separator: " ")
    self.deadline = deadline
    isOnTerminal = true
    var spawner = Spawner()
    defer { spawner.finish() }
    spawner.open(terminal.path, O_RDWR, as: 0)
    spawner.duplicate(0, as: 1)
    spawner.duplicate(0, as: 2)
    outputEnd = dup(terminal.master)
    input = dup(terminal.master)
    identifier = try spawner.start(executable, arguments, environment, isSessionLeader: true)
    lifeEnd = clinux_pidfd_open(identifier)
  }

  deinit {
    closeAll()
    if end == nil {
      kill(-identifier, SIGKILL)
      _ = reap()
    }
  }

  // MARK: What tests do with it

  /// Its output as text.
  package var outputText: String { String(decoding: output, as: UTF8.self) }
  /// Its standard error as text.
  package var errorText: String { String(decoding: errors, as: UTF8.self) }

  /// Sends `bytes` to its standard input or terminal.
  package func type(_ bytes: [UInt8]) { pendingInput += bytes }

  /// Sends the UTF-8 of `text`.
  package func type(_ text: String) { type(Array(text.utf8)) }

  /// Closes its standard input once everything typed has gone.
  package func endInput() { closesInput = true }

  /// Closes the reading end of its standard output, as `head` does.
  package func closeOutput() { Self.close(&outputEnd) }

  /// Sends it a signal.
  package func send(_ signal: Int32) { kill(identifier, signal) }

  /// Waits until its output contains `text`, that many times.
  package func waitForOutput(_ text: String, times: Int = 1) throws {
    try pump("the output \(text.debugDescription)") {
      $0.outputText.components(separatedBy: text).count > times
    }
  }

  /// Waits until its standard error contains `text`, that many times.
  package func waitForErrors(_ text: String, times: Int = 1) throws {
    try pump("the message \(text.debugDescription)") {
      $0.errorText.components(separatedBy: text).count > times
    }
  }

  /// Waits until its output has `count` bytes.
  package func waitForOutput(bytes count: Int) throws {
    try pump("\(count) bytes of output") { $0.output.count >= count }
  }

  /// Waits until it has ended and all of its output is there.
  @discardableResult
  package func waitForEnd() throws -> End {
    if let end { return end }
    try pump("its end", failsAtEnd: false) {
      $0.lifeEnd < 0 && ($0.isOnTerminal || ($0.outputEnd < 0 && $0.errorEnd < 0))
    }
    let end = reap()
    self.end = end
    if isOnTerminal { drainTerminal() }
    closeAll()
    return end
  }

  /// Reads nothing until the pipe of its output holds no more, so that it waits in a write.
  package func waitUntilOutputIsFull() throws {
    // fcntl's F_SETPIPE_SZ and F_GETPIPE_SZ, which Glibc leaves out. A smaller pipe is full sooner.
    _ = fcntl(outputEnd, 1031, 4096)
    let capacity = fcntl(outputEnd, 1032)
    var waiting: Int32 = 0
    while waiting < capacity {
      if deadline.isOver || lifeEnd < 0 { throw overdue("didn't fill its pipe in time") }
      guard unsafe ioctl(outputEnd, UInt(FIONREAD), &waiting) == 0 else { throw POSIXError(.EIO) }
      sched_yield()
    }
  }

  /// Waits until it has ended, and takes none of its output before that.
  package func waitForEndWithoutReading() throws -> End {
    isReadingOutput = false
    try pump("its end", failsAtEnd: false) { $0.lifeEnd < 0 }
    isReadingOutput = true
    return try waitForEnd()
  }

  /// Whether any process of its group is left.
  package var hasLeftProcesses: Bool { kill(-identifier, 0) == 0 }

  // MARK: Inside

  private func pump(
    _ what: String, failsAtEnd: Bool = true, until isDone: (ChildProcess) -> Bool
  ) throws {
    while !isDone(self) {
      if deadline.isOver { throw overdue("didn't give \(what) in time") }
      if failsAtEnd && lifeEnd < 0 && outputEnd < 0 && errorEnd < 0 {
        throw overdue("ended without \(what)")
      }
      var requests: [pollfd] = []
      let readingEnd = isReadingOutput ? outputEnd : -1
      for descriptor in [readingEnd, errorEnd, lifeEnd] where descriptor >= 0 {
        requests.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0))
      }
      if input >= 0 && !pendingInput.isEmpty {
        requests.append(pollfd(fd: input, events: Int16(POLLOUT), revents: 0))
      }
      unsafe poll(&requests, nfds_t(requests.count), deadline.milliseconds)
      for request in requests where request.revents != 0 { serve(request.fd) }
      if isOnTerminal && lifeEnd < 0 { Self.close(&outputEnd) }
      if closesInput && pendingInput.isEmpty { Self.close(&input) }
    }
  }

  private func serve(_ descriptor: Int32) {
    switch descriptor {
    case outputEnd: if !Self.read(descriptor, &output) { Self.close(&outputEnd) }
    case errorEnd: if !Self.read(descriptor, &errors) { Self.close(&errorEnd) }
    case lifeEnd:
      if isOnTerminal { drainTerminal() }
      Self.close(&lifeEnd)
    default:
      // A pipe is ready when it has room for PIPE_BUF bytes: writing no more never waits.
      let chunk = Array(pendingInput.prefix(isOnTerminal ? 64 : 4096))
      let count = unsafe write(descriptor, chunk, chunk.count)
      if count > 0 {
        pendingInput.removeFirst(count)
      } else if errno != EINTR && errno != EAGAIN {
        pendingInput = []
        Self.close(&input)
      }
    }
  }

  // A terminal has no end while the test keeps it open: take what is there.
  private func drainTerminal() {
    while outputEnd >= 0 {
      var request = pollfd(fd: outputEnd, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&request, 1, 0) == 1, request.revents & Int16(POLLIN) != 0,
        Self.read(outputEnd, &output)
      else { return }
    }
  }

  private func overdue(_ what: String) -> Overdue {
    kill(-identifier, SIGKILL)
    end = reap()
    return Overdue(
      "\(name) \(what); output: \(outputText.suffix(2000).debugDescription), "
        + "standard error: \(errorText.suffix(2000).debugDescription)")
  }

  private func reap() -> End {
    var status: Int32 = 0
    while unsafe waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
    let signal = status & 0x7F
    return signal == 0 ? .exited(status >> 8 & 0xFF) : .killed(signal)
  }

  private func closeAll() {
    for path in [\ChildProcess.input, \.outputEnd, \.errorEnd, \.lifeEnd] {
      Self.close(&self[keyPath: path])
    }
  }

  private static func read(_ descriptor: Int32, _ bytes: inout [UInt8]) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 65536)
    let count = unsafe Glibc.read(descriptor, &buffer, buffer.count)
    if count < 0 { return errno == EINTR || errno == EAGAIN }
    bytes += buffer.prefix(count)
    return count > 0
  }

  private static func close(_ descriptor: inout Int32) {
    if descriptor >= 0 { Glibc.close(descriptor) }
    descriptor = -1
  }
}

/// What a program gets at its start. Corresponds to `posix_spawn(3)`.
@safe private struct Spawner {
  private var actions = unsafe posix_spawn_file_actions_t()
  private var ends: [Int32] = []

  init() { unsafe posix_spawn_file_actions_init(&actions) }

  mutating func open(_ path: String, _ flags: Int32, as number: Int32) {
    unsafe posix_spawn_file_actions_addopen(&actions, number, path, flags, 0)
  }

  mutating func close(_ number: Int32) {
    unsafe posix_spawn_file_actions_addclose(&actions, number)
  }

  mutating func duplicate(_ source: Int32, as number: Int32) {
    unsafe posix_spawn_file_actions_adddup2(&actions, source, number)
  }

  /// A pipe whose reading end is the program's `number`; returns the writing end.
  mutating func pipe(to number: Int32) throws -> Int32 {
    let (reading, writing) = try makePipe()
    ends.append(reading)
    duplicate(reading, as: number)
    return writing
  }

  /// A pipe whose writing end is the program's `number`; returns the reading end.
  mutating func pipe(from number: Int32) throws -> Int32 {
    let (reading, writing) = try makePipe()
    ends.append(writing)
    duplicate(writing, as: number)
    return reading
  }

  private func makePipe() throws -> (reading: Int32, writing: Int32) {
    var numbers: [Int32] = [-1, -1]
    guard unsafe pipe2(&numbers, Int32(O_CLOEXEC)) == 0 else { throw POSIXError(.EMFILE) }
    return (numbers[0], numbers[1])
  }

  mutating func start(
    _ executable: String, _ arguments: [String], _ additions: [String: String],
    isSessionLeader: Bool
  ) throws -> pid_t {
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    let flags =
      POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
      | (isSessionLeader ? 0x80 /* POSIX_SPAWN_SETSID */ : Int32(POSIX_SPAWN_SETPGROUP))
    unsafe posix_spawnattr_setflags(&attributes, Int16(flags))
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe posix_spawnattr_setsigmask(&attributes, &signals)
    unsafe sigfillset(&signals)
    unsafe posix_spawnattr_setsigdefault(&attributes, &signals)

    var environment = ProcessInfo.processInfo.environment
    environment.merge(additions) { $1 }
    var identifier: pid_t = 0
    let error = unsafe withStrings([executable] + arguments) { arguments in
      unsafe withStrings(environment.map { "\($0)=\($1)" }) { environment in
        unsafe posix_spawnp(
          &identifier, executable, &actions, &attributes, arguments, environment)
      }
    }
    guard error == 0 else { throw Overdue("\(executable) can't be started: error \(error)") }
    return identifier
  }

  mutating func finish() {
    for end in ends { Glibc.close(end) }
    unsafe posix_spawn_file_actions_destroy(&actions)
  }

  private func withStrings<Result>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
  ) -> Result {
    let copies = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
    return unsafe body(copies)
  }
}
