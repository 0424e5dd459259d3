import CLinux
import Glibc
import Synchronization

/// Another program that runs for as long as this object is there.
public final class ChildProgram: Sendable {
  /// Its process's number.
  public let identifier: Int32
  private let hasEnded = Atomic<Bool>(false)

  /// Starts `program`, found by PATH, with `arguments`. Of this process's open files it has standard
  /// error and `file`, by the same number. Corresponds to `posix_spawnp(3)`.
  public convenience init(
    _ program: String, _ arguments: [String], inheriting file: borrowing FileDescriptor
  ) throws(Errno) {
    try self.init(program, arguments, file.number, as: file.number)
  }

  /// The same with no other open file than `file` for its standard error.
  public convenience init(
    _ program: String, _ arguments: [String], standardError file: borrowing FileDescriptor
  ) throws(Errno) {
    try self.init(program, arguments, file.number, as: 2)
  }

  private init(
    _ program: String, _ arguments: [String], _ inherited: Int32, as number: Int32
  ) throws(Errno) {
    var identifier: pid_t = 0
    let error = unsafe Self.withStrings([program] + arguments) { words in
      var actions = unsafe posix_spawn_file_actions_t()
      unsafe posix_spawn_file_actions_init(&actions)
      defer { unsafe posix_spawn_file_actions_destroy(&actions) }
      for standard in Int32(0)...1 {
        unsafe posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0)
      }
      // Duplicating a number onto itself takes its close-on-exec flag away.
      unsafe posix_spawn_file_actions_adddup2(&actions, inherited, number)
      var attributes = posix_spawnattr_t()
      unsafe posix_spawnattr_init(&attributes)
      defer { unsafe posix_spawnattr_destroy(&attributes) }
      // Signals as every program expects them, and a process group of its own: Ctrl-C is for us.
      var signals = sigset_t()
      unsafe sigemptyset(&signals)
      unsafe posix_spawnattr_setsigmask(&attributes, &signals)
      unsafe sigfillset(&signals)
      unsafe posix_spawnattr_setsigdefault(&attributes, &signals)
      unsafe posix_spawnattr_setflags(
        &attributes,
        Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))
      return unsafe posix_spawnp(&identifier, program, &actions, &attributes, words, environ)
    }
    guard error == 0 else { throw Errno(error) }
    self.identifier = identifier
  }

  deinit { stop() }

  /// How it ended: its exit status, or 128 and the signal; nil while it runs.
  public func endStatus() -> Int32? {
    guard !hasEnded.load(ordering: .acquiring) else { return nil }
    var status: Int32 = 0
    guard unsafe waitpid(identifier, &status, WNOHANG) == identifier else { return nil }
    hasEnded.store(true, ordering: .releasing)
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
  }

  /// The processor time that it took so far, in nanoseconds; 0 once it has ended. Corresponds to
  /// `clock_getcpuclockid(3)`.
  public var processorNanoseconds: UInt64 {
    var clock = clockid_t()
    var time = timespec()
    let isFound = unsafe clock_getcpuclockid(identifier, &clock) == 0
    guard isFound, unsafe clock_gettime(clock, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Stops it where it is, and returns when all its threads stand still; false if it has ended.
  /// Corresponds to SIGSTOP.
  public func pause() -> Bool {
    guard !hasEnded.load(ordering: .acquiring), kill(identifier, SIGSTOP) == 0 else { return false }
    var information = unsafe siginfo_t()
    // WNOWAIT leaves its end, if that is what came, to `endStatus()`.
    let result = unsafe waitid(
      P_PID, id_t(identifier), &information, WSTOPPED | WEXITED | WNOWAIT)
    return unsafe result == 0 && information.si_code == CLD_STOPPED
  }

  /// Lets it go on. Corresponds to SIGCONT.
  public func goOn() { kill(identifier, SIGCONT) }

  /// Ends it and waits for that.
  public func stop() {
    guard !hasEnded.exchange(true, ordering: .acquiringAndReleasing) else { return }
    kill(identifier, SIGTERM)
    kill(identifier, SIGCONT)
    var status: Int32 = 0
    // It may ignore the polite request.
    for _ in 0..<100 {
      if unsafe waitpid(identifier, &status, WNOHANG) != 0 { return }
      usleep(10_000)
    }
    kill(identifier, SIGKILL)
    while unsafe waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
  }

  private static func withStrings<Result>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
  ) -> Result {
    let copies = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
    return unsafe body(copies)
  }
}
