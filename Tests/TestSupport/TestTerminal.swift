import CLinux
import Foundation
import Glibc

/// A pseudo-terminal: the test types at its master, the program has its slave.
package final class TestTerminal {
  /// The tester's side.
  let master: Int32
  /// What the program opens.
  package let path: String
  // Kept open, so that its mode can be read when the program has ended.
  private let slave: Int32

  /// Makes one in the mode that a login gives a terminal: line by line, with echo and Ctrl-C.
  package init() throws {
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)
    guard master >= 0, grantpt(master) == 0, unlockpt(master) == 0,
      let name = unsafe ptsname(master)
    else { throw Overdue("no pseudo-terminal to be had: errno \(errno)") }
    unsafe path = String(cString: name)
    slave = unsafe open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
    guard slave >= 0 else { throw Overdue("\(path) can't be opened: errno \(errno)") }
  }

  deinit {
    close(slave)
    close(master)
  }

  /// The terminal's mode as text, every flag and key of it.
  package var mode: String {
    var mode = termios()
    unsafe tcgetattr(slave, &mode)
    return "\(mode.c_iflag) \(mode.c_oflag) \(mode.c_cflag) \(mode.c_lflag) \(mode.c_cc)"
  }

  /// Gives it a shell's mode, as one that took it back would.
  package func makeCooked() {
    var mode = termios()
    unsafe tcgetattr(slave, &mode)
    mode.c_lflag |= tcflag_t(ICANON | ECHO | ISIG)
    unsafe tcsetattr(slave, TCSANOW, &mode)
  }

  /// Whether keys are passed on as they are: no lines, no echo, no signals.
  package var isRaw: Bool {
    var mode = termios()
    unsafe tcgetattr(slave, &mode)
    return mode.c_lflag & tcflag_t(ICANON | ECHO | ISIG) == 0
  }
}
