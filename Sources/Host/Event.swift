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
    // Nothing but /proc tells an event from other files; a pipe, say, could make who raises it wait.
    let capacity = 64
    let name = unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { buffer in
      // The kernel writes at most the buffer's length, and no zero behind it.
      guard let base = buffer.baseAddress else { return "" }
      let count = unsafe readlink("/proc/self/fd/\(file.number)", base, capacity - 1)
      unsafe buffer[max(0, count)] = 0
      return unsafe String(cString: base)
    }
    guard name == "anon_inode:[eventfd]" else { throw Errno.invalidArgument }
    _ = fcntl(file.number, F_SETFL, O_NONBLOCK)
    descriptor = file
  }

  /// Raises the event, from any thread.
  package borrowing func raise() {
    eventfd_write(descriptor.number, 1)
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
    return unsafe eventfd_read(descriptor.number, &value) == 0
  }
}
