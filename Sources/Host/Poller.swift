import CLinux
import Glibc

/// Waits for any of several descriptors to become readable. Corresponds to `epoll(7)`.
package struct Poller: ~Copyable, Sendable {
  /// Readable while a watched file is ready, so that another one can watch this.
  package let descriptor: FileDescriptor

  /// Makes one that watches nothing.
  package init() throws(Errno) {
    let number = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard number >= 0 else { throw Errno.current }
    descriptor = FileDescriptor(owning: number)
  }

  /// Watches `file`; `tag` is what `next` returns for it.
  ///
  /// Returns false for a file that is always ready, such as a regular file or /dev/null.
  package borrowing func add(_ file: borrowing FileDescriptor, tag: UInt64) throws(Errno) -> Bool {
    if clinux_epoll_add(descriptor.number, file.number, UInt32(EPOLLIN.rawValue), tag) == 0 {
      return true
    }
    guard Errno.current == .notPermitted else { throw Errno.current }
    return false
  }

  /// Watches `file` for data that comes, not for data that is there: `next` tells of each arrival
  /// once, whether or not somebody reads. Corresponds to `EPOLLET`.
  package borrowing func addEdges(_ file: borrowing FileDescriptor, tag: UInt64) throws(Errno) {
    let events = UInt32(EPOLLIN.rawValue) | 1 << 31  // EPOLLET, which Swift doesn't import
    guard clinux_epoll_add(descriptor.number, file.number, events, tag) == 0 else {
      throw Errno.current
    }
  }

  /// The same for a socket: for data, for room to write, and for the peer's end.
  package borrowing func addSocketEdges(
    _ file: borrowing FileDescriptor, tag: UInt64
  ) throws(Errno) {
    let events =
      UInt32(EPOLLIN.rawValue) | UInt32(EPOLLOUT.rawValue) | UInt32(EPOLLRDHUP.rawValue) | 1 << 31
    guard clinux_epoll_add(descriptor.number, file.number, events, tag) == 0 else {
      throw Errno.current
    }
  }

  /// No longer watches `file`.
  package borrowing func remove(_ file: borrowing FileDescriptor) {
    _ = clinux_epoll_remove(descriptor.number, file.number)
  }

  /// Waits up to `milliseconds` (nil: for ever) and returns the tag of a ready file, or nil.
  package borrowing func next(milliseconds: Int32?) -> UInt64? {
    next(nanoseconds: milliseconds.map { UInt64(max(0, $0)) * 1_000_000 })
  }

  /// Waits up to `nanoseconds` (nil: for ever) and returns the tag of a ready file, or nil. Before Linux
  /// 5.11 waits end at a full millisecond. Corresponds to `epoll_pwait2(2)`.
  package borrowing func next(nanoseconds: UInt64?) -> UInt64? {
    var tag: UInt64 = 0
    let limit = nanoseconds.map { Int64(clamping: $0) } ?? -1
    // The shim writes one number, and only if it returns 1.
    return unsafe clinux_epoll_next(descriptor.number, limit, &tag) == 1 ? tag : nil
  }

  /// The same until `Clock.monotonicNanoseconds` comes to `deadline` (nil: for ever).
  package borrowing func next(until deadline: UInt64?) -> UInt64? {
    guard let deadline else { return next(nanoseconds: nil) }
    let now = Clock.monotonicNanoseconds
    return next(nanoseconds: deadline > now ? deadline - now : 0)
  }
}
