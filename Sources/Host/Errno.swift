import CLinux
import Glibc

/// An error number of the host's Linux, as a system call left it in `errno`.
public struct Errno: Error, Equatable, Sendable {
  /// The number, such as 2 for `ENOENT`.
  public let code: Int32

  /// Wraps an error number.
  public init(_ code: Int32) { self.code = code }

  /// The calling thread's `errno`. Corresponds to `errno(3)`.
  public static var current: Errno { Errno(errno) }

  /// The symbolic name, such as `ENOENT`. Corresponds to `strerrorname_np(3)`.
  public var name: String {
    // The C library returns a pointer to a constant string, or NULL for an unknown number.
    guard let name = unsafe strerrorname_np(code) else { return "errno \(code)" }
    return unsafe String(cString: name)
  }
}

extension Errno: CustomStringConvertible {
  /// The C library's sentence and the name: `No such file or directory (ENOENT)`.
  public var description: String {
    // The C library returns a pointer to a constant string, or NULL for an unknown number.
    let sentence = unsafe strerrordesc_np(code).map { unsafe String(cString: $0) } ?? "Unknown error"
    return "\(sentence) (\(name))"
  }
}
