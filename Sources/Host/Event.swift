import CLinux
import Glibc

/// A counter in the kernel that one thread raises to wake another's event loop.
///
/// Corresponds to `eventfd(2)`.
public struct Event: ~Copyable, Sendable {
  /// Readable while the event is raised.
  public let descriptor: FileDescriptor

  /// Makes an event that is not raised.
  public init() throws(Errno) {
    let number = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard number >= 0 else { throw Errno.current }
    descriptor = FileDescriptor(owning: number)
  }

  /// Raises the event, from any thread.
  public borrowing func raise() {
    eventfd_write(descriptor.number, 1)
  }

  /// Whether the event is raised; it stays as it is.
  public var isRaised: Bool {
    var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, 0) == 1
  }

  /// Takes the event back and tells whether it was raised.
  @discardableResult
  public borrowing func consume() -> Bool {
    var value: eventfd_t = 0
    return unsafe eventfd_read(descriptor.number, &value) == 0
  }
}
