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
    let sentence =
      unsafe strerrordesc_np(code).map { unsafe String(cString: $0) } ?? "Unknown error"
    return "\(sentence) (\(name))"
  }
}

extension Errno {
  /// A signal came first.
  public static let interrupted = Errno(EINTR)
  /// Nothing there now; try again.
  public static let tryAgain = Errno(EAGAIN)
  /// There is no such file.
  public static let noSuchFile = Errno(ENOENT)
  /// There is a device file, but no device behind it.
  public static let noSuchDevice = Errno(ENODEV)
  /// The same, for a device file.
  public static let noSuchAddress = Errno(ENXIO)
  /// Permission denied.
  public static let accessDenied = Errno(EACCES)
  /// The file isn't open.
  public static let badDescriptor = Errno(EBADF)
  /// Operation not permitted.
  public static let notPermitted = Errno(EPERM)
  /// Somebody else uses it.
  public static let busy = Errno(EBUSY)
  /// A device failed.
  public static let inputOutput = Errno(EIO)
  /// The device doesn't know the ioctl.
  public static let noSuchRequest = Errno(ENOTTY)
  /// Not enough memory.
  public static let noMemory = Errno(ENOMEM)
  /// An argument that makes no sense.
  public static let invalidArgument = Errno(EINVAL)
  /// The path leads to a directory.
  public static let isDirectory = Errno(EISDIR)
  /// The file system can only be read.
  public static let readOnlyFileSystem = Errno(EROFS)
  /// Nobody listens there.
  public static let connectionRefused = Errno(ECONNREFUSED)
  /// The other side of a connection is gone.
  public static let connectionReset = Errno(ECONNRESET)
  /// The reading end of the pipe is closed.
  public static let brokenPipe = Errno(EPIPE)
  /// The file is too large.
  public static let fileTooLarge = Errno(EFBIG)
  /// The disk is full.
  public static let noSpace = Errno(ENOSPC)
  /// The file system can't do that.
  public static let notSupported = Errno(EOPNOTSUPP)
  /// There is a file of that name already.
  public static let exists = Errno(EEXIST)
  /// An address that isn't mapped.
  public static let badAddress = Errno(EFAULT)
}
