import CLinux
import Glibc

/// A counter in the kernel that one thread raises to wake another's event loop.
///
/// Corresponds to `eventfd(2)`.
package struct Event: ~Copyable, Sendable {
  /// Readable while the event is raised.
  package let descriptor: FileDescriptor

  /// Makes an event that is not raised.
  package init() throws(Errno) {
    let number = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
    guard number >= 0 else { throw Errno.current }
    descriptor = FileDescriptor(owning: number)
  }

  /// Takes over an event that came from another process; `EINVAL` for a file that is none. The other
  /// process can still make it one that waits.
  package init(adopting file: consuming FileDescriptor) throws(Errno) {
    // A pipe, say, could make who raises it wait. Files of the kernel's own making have no type, and of
    // those events alone take a number: adding 0 changes nothing and never waits.
    var status = stat()
    _ = fcntl(file.number, F_SETFL, O_NONBLOCK)
    guard unsafe fstat(file.number, &status) == 0, status.st_mode & S_IFMT == 0,
      eventfd_write(file.number, 0) == 0
    else { throw Errno.invalidArgument }
    descriptor = file
  }

  /// Raises the event, from any thread.
  package borrowing func raise() {
    while eventfd_write(descriptor.number, 1) < 0 && errno == EINTR {}
  }

  /// Whether the event is raised; it stays as it is.
  package var isRaised: Bool {
    var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, 0) == 1
  }

  /// Takes the event back and tells whether it was raised.
  @discardableResult
  package borrowing func consume() -> Bool {
    var value: eventfd_t = 0
    while true {
      if unsafe eventfd_read(descriptor.number, &value) == 0 { return true }
      guard errno == EINTR else { return false }
    }
  }
}
