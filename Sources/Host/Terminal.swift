import Glibc

/// A terminal's mode: taken, changed and put back.
public struct Terminal: Sendable {
  private let number: Int32
  private let original: termios

  /// Remembers the present mode of the terminal behind `file`; nil if it is none.
  ///
  /// Corresponds to `tcgetattr(3)`.
  public init?(_ file: borrowing FileDescriptor) {
    var mode = termios()
    guard unsafe tcgetattr(file.number, &mode) == 0 else { return nil }
    number = file.number
    original = mode
  }

  /// Passes every key on at once and unchanged, Ctrl-C too; output stays as it was, so that a line
  /// feed still starts a new line. Corresponds to `tcsetattr(3)`.
  public func makeRaw() {
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
  public func restore() {
    var mode = original
    unsafe tcsetattr(number, TCSANOW, &mode)
  }
}
