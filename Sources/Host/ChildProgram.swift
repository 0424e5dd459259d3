import CLinux
import Glibc
import Synchronization

/// Another program that runs for as long as this object is there.
package final class ChildProgram: Sendable {
  /// Its process's number.
  package let identifier: Int32
  private let hasEnded = Atomic<Bool>(false)
  private let signals: Errand

  /// The number by which a program has the file that it inherits.
  package static let inheritedNumber: Int32 = 3

  /// Starts `program`, found by PATH, with `arguments`. Of this process's open files it has `words` for
  /// its standard error, `file` as `inheritedNumber`, and no other: some may have come from whoever
  /// started us. Corresponds to `posix_spawnp(3)`.
  package convenience init(
    _ program: String, _ arguments: [String], inheriting file: borrowing FileDescriptor,
    standardError words: borrowing FileDescriptor
  ) throws(Errno) {
    try self.init(program, arguments, error: words.number, inherited: [file.number])
  }

  /// The same with `files` for its input, output and error, and from `inheritedNumber` on; their numbers
  /// here are above those.
  package convenience init(
    _ program: String, _ arguments: [String], files: [SharedDescriptor]
  ) throws(Errno) {
    // Who becomes one of them must not be another that is still to be taken.
    let copies = try files.map { (file) throws(Errno) in
      SharedDescriptor(try file.file.duplicate(from: Int32(files.count)))
    }
    let numbers = copies.map { $0.file.number }
    try self.init(
      program, arguments, input: numbers[0], output: numbers[1], error: numbers[2],
      inherited: Array(numbers.dropFirst(3)))
  }

  /// What a program gives up that makes text of what it is handed: of what it has open it keeps nothing
  /// else, and it has limits of memory and time.
  package struct Confinement: Sendable {
    /// What it may ask of the kernel.
    let filter: SystemCallFilter
    /// Who it shall be; nil for whoever starts it.
    let user: UInt32?

    /// Takes both as they are.
    package init(_ filter: SystemCallFilter, user: UInt32?) {
      (self.filter, self.user) = (filter, user)
    }
  }

  /// The same with `output` for its standard output, nothing for its standard error, and `environment`
  /// for all that it knows of its surroundings; `program` is a path.
  convenience init(
    _ program: String, _ arguments: [String], inheriting file: borrowing FileDescriptor,
    standardOutput output: borrowing FileDescriptor, environment: [String],
    _ confinement: Confinement?
  ) throws(Errno) {
    guard let confinement else {
      try self.init(
        program, arguments, output: output.number, error: nil, inherited: [file.number],
        environment: environment)
      return
    }
    let (output, file) = (output.number, file.number)
    let started = unsafe confinement.filter.withInstructions { instructions, count in
      unsafe Self.withStrings([program] + arguments) { words in
        unsafe Self.withStrings(environment) { environment in
          unsafe clinux_start_confined(
            program, words, environment, output, file, confinement.user ?? 0, instructions, count)
        }
      }
    }
    guard started > 0 else { throw Errno.current }
    self.init(started: started)
  }

  private init(started identifier: Int32) {
    self.identifier = identifier
    signals = Errand(.signal(identifier))
  }

  /// The same with no other open file than `file` for its standard error.
  package convenience init(
    _ program: String, _ arguments: [String], standardError file: borrowing FileDescriptor
  ) throws(Errno) {
    try self.init(program, arguments, error: file.number)
  }

  private init(
    _ program: String, _ arguments: [String], input: Int32? = nil, output: Int32? = nil,
    error: Int32?, inherited: [Int32] = [], environment: [String]? = nil
  ) throws(Errno) {
    var identifier: pid_t = 0
    let failure = unsafe Self.withStrings([program] + arguments) { words in
      var actions = unsafe posix_spawn_file_actions_t()
      unsafe posix_spawn_file_actions_init(&actions)
      defer { unsafe posix_spawn_file_actions_destroy(&actions) }
      // Duplicating a number onto itself takes its close-on-exec flag away.
      for (standard, file) in [(Int32(0), input), (1, output), (2, error)] {
        if let file {
          unsafe posix_spawn_file_actions_adddup2(&actions, file, standard)
        } else {
          unsafe posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0)
        }
      }
      var end = Self.inheritedNumber
      for file in inherited {
        unsafe posix_spawn_file_actions_adddup2(&actions, file, end)
        end += 1
      }
      unsafe posix_spawn_file_actions_addclosefrom_np(&actions, end)
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
      guard let environment else {
        return unsafe posix_spawnp(&identifier, program, &actions, &attributes, words, environ)
      }
      return unsafe Self.withStrings(environment) {
        unsafe posix_spawn(&identifier, program, &actions, &attributes, words, $0)
      }
    }
    guard failure == 0 else { throw Errno(failure) }
    self.identifier = identifier
    signals = Errand(.signal(identifier))
  }

  deinit { stop() }

  /// Lets it run on without this object.
  package func leave() { hasEnded.store(true, ordering: .releasing) }

  /// A file that becomes readable when it has ended; nil on a Linux before 5.3. Corresponds to
  /// `pidfd_open(2)`.
  package func makeEndDescriptor() -> SharedDescriptor? { Self.makeEndDescriptor(of: identifier) }

  /// The same of any process.
  package static func makeEndDescriptor(of process: Int32) -> SharedDescriptor? {
    let number = clinux_pidfd_open(process)
    return number < 0 ? nil : SharedDescriptor(FileDescriptor(owning: number))
  }

  /// Kills the process that `makeEndDescriptor(of:)` gave this for.
  package static func killProcess(_ process: SharedDescriptor) {
    clinux_pidfd_kill(process.file.number)
  }

  /// How it ended: its exit status, or 128 and the signal; nil while it runs. `waits` is for one whose
  /// end descriptor is readable: the status can come a moment later.
  package func endStatus(waits: Bool = false) -> Int32? {
    guard !hasEnded.load(ordering: .acquiring) else { return nil }
    var status: Int32 = 0
    var found: Int32
    repeat {
      found = unsafe waitpid(identifier, &status, waits ? 0 : WNOHANG)
    } while found < 0 && errno == EINTR
    guard found == identifier else { return nil }
    hasEnded.store(true, ordering: .releasing)
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
  }

  /// The processor time that it took so far, in nanoseconds; 0 once it has ended. Corresponds to
  /// `clock_getcpuclockid(3)`.
  package var processorNanoseconds: UInt64 {
    var clock = clockid_t()
    var time = timespec()
    let isFound = unsafe clock_getcpuclockid(identifier, &clock) == 0
    guard isFound, unsafe clock_gettime(clock, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
  }

  /// Stops it where it is, and returns when all its threads stand still; false if it has ended.
  /// Corresponds to SIGSTOP.
  package func pause() -> Bool {
    guard !hasEnded.load(ordering: .acquiring), kill(identifier, SIGSTOP) == 0 else { return false }
    var information = unsafe siginfo_t()
    // WNOWAIT leaves its end, if that is what came, to `endStatus()`.
    let result = unsafe waitid(
      P_PID, id_t(identifier), &information, WSTOPPED | WEXITED | WNOWAIT)
    return unsafe result == 0 && information.si_code == CLD_STOPPED
  }

  /// Lets it go on. Corresponds to SIGCONT.
  package func goOn() { kill(identifier, SIGCONT) }

  /// Ends it and waits for that. It may ignore a polite request, for a second.
  package func stop(politely: Bool = true) {
    guard !hasEnded.exchange(true, ordering: .acquiringAndReleasing) else { return }
    if politely {
      send(SIGTERM)
      send(SIGCONT)
    }
    var status: Int32 = 0
    for _ in 0..<(politely ? 100 : 0) {
      if unsafe waitpid(identifier, &status, WNOHANG) != 0 { return }
      usleep(10_000)
    }
    send(SIGKILL)
    while unsafe waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
  }

  private func send(_ signal: Int32) { _ = try? signals.perform(UInt64(signal)) }

  /// Ends it with all that it has started and that is still in its process group. To be called before
  /// `endStatus()` has told its end, for then another may have its number.
  package func stopGroup() {
    guard !hasEnded.load(ordering: .acquiring) else { return }
    kill(-identifier, SIGKILL)
  }

  private static func withStrings<Result>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
  ) -> Result {
    let copies = unsafe strings.map { unsafe strdup($0) } + [nil]
    defer { for index in unsafe copies.indices { unsafe free(copies[index]) } }
    return unsafe body(copies)
  }
}
