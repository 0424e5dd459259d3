import CLinux
import Glibc

/// A terminal's mode: taken, changed and put back.
package struct Terminal: Sendable {
  private let number: Int32
  private let original: termios

  /// Remembers the present mode of the terminal behind `file`; nil if it is none.
  ///
  /// Corresponds to `tcgetattr(3)`.
  package init?(_ file: borrowing FileDescriptor) {
    var mode = termios()
    guard unsafe tcgetattr(file.number, &mode) == 0 else { return nil }
    number = file.number
    original = mode
  }

  /// Passes every key on at once and unchanged, Ctrl-C too; output stays as it was, so that a line
  /// feed still starts a new line. Corresponds to `tcsetattr(3)`.
  package func makeRaw() {
    var mode = original
    mode.c_iflag &= ~tcflag_t(BRKINT | ICRNL | IGNCR | INLCR | INPCK | ISTRIP | IXON)
    mode.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | IEXTEN | ISIG)
    mode.c_cflag = mode.c_cflag & ~tcflag_t(CSIZE | PARENB) | tcflag_t(CS8)
    unsafe withUnsafeMutableBytes(of: &mode.c_cc) { keys in
      unsafe keys[Int(VMIN)] = 1
      unsafe keys[Int(VTIME)] = 0
    }
    unsafe tcsetattr(number, TCSANOW, &mode)
  }

  /// Puts back the mode that `init` found.
  package func restore() {
    var mode = original
    unsafe tcsetattr(number, TCSANOW, &mode)
  }
}

extension Terminal {
  /// Whether this process is in the terminal's foreground, so that it may read from it.
  package var isForeground: Bool { tcgetpgrp(number) == getpgrp() }
}

extension Terminal {
  // Written once, before the handler that reads it is there.
  private nonisolated(unsafe) static var modeToRestore: (number: Int32, mode: termios)?

  /// Signals that end a program unless it takes them: crashes of its own, and others' wishes. The run
  /// takes some of these, but not at its start and end.
  private static let deadly = [
    SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM,
    SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO, SIGPWR, SIGSTKFLT,
  ]

  /// Puts back the mode that a crash would have put back. Corresponds to `tcsetattr(3)`, which may be
  /// called from a signal handler.
  package static func restoreNow() {
    if var saved = unsafe Terminal.modeToRestore {
      unsafe tcsetattr(saved.number, TCSANOW, &saved.mode)
    }
  }

  /// Puts the mode back also when this program crashes or a signal ends it, and lets that happen then.
  ///
  /// tcsetattr(3) may be called from a signal handler (signal-safety(7)).
  package func restoreOnCrash() {
    unsafe Terminal.modeToRestore = (number, original)
    for fatal in Self.deadly
    where !Signal(fatal).isIgnored && !(fatal == SIGBUS && LostMemory.ends) {
      var action = sigaction()
      unsafe action.__sigaction_handler.sa_handler = { signal in
        Terminal.restoreNow()
        raise(signal)
      }
      action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND)) | Int32(SA_NODEFER)
      unsafe sigaction(fatal, &action, nil)
    }
  }
}

/// The master's side of a new terminal. Corresponds to `posix_openpt(3)`.
package struct PseudoTerminal: ~Copyable, Sendable {
  /// What the machine reads and writes.
  package let master: FileDescriptor
  /// Kept open, so that the master doesn't report an end while nobody has the terminal open.
  private let slave: FileDescriptor
  /// What a user opens, such as /dev/pts/3.
  package let path: String

  /// Makes one, raw and without echo.
  package init() throws(Errno) {
    let number = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)
    guard number >= 0 else { throw Errno.current }
    let master = FileDescriptor(owning: number)
    guard grantpt(number) == 0, unlockpt(number) == 0, let name = unsafe ptsname(number) else {
      throw Errno.current
    }
    // ptsname's string is overwritten by the next call: it is copied at once.
    let path = unsafe String(cString: name)
    let slave = try FileDescriptor(opening: path, [.readWrite, .noTerminalControl])
    Terminal(slave)?.makeRaw()
    self.master = master
    self.slave = slave
    self.path = path
  }

  /// A file that is readable once somebody opens the terminal from now on. Corresponds to `inotify(7)`.
  package func watchOpening() throws(Errno) -> FileDescriptor {
    let number = unsafe clinux_watch_opening(path)
    guard number >= 0 else { throw Errno.current }
    return FileDescriptor(owning: number)
  }
}
