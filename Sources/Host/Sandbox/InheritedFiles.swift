import CLinux
import Glibc

/// What a process has open from whoever started it, besides the standard streams.
package enum InheritedFiles {
  // Set once, before there are other threads.
  private nonisolated(unsafe) static var numbers: [Int32] = []
  private static let mostNoted: Int32 = 1024

  /// Notes which they are, before any file is opened; those that have numbers beyond what is usual are
  /// closed at once. Corresponds to `poll(2)` and `close_range(2)`.
  package static func note() {
    clinux_close_from(mostNoted)
    // More than there may be are refused.
    let limit = sysconf(Int32(_SC_OPEN_MAX))
    let most = limit < 0 ? mostNoted : Int32(clamping: min(Int(mostNoted), limit))
    var requests = (3..<max(3, most)).map { pollfd(fd: $0, events: 0, revents: 0) }
    // Each answer is in its request.
    if unsafe poll(&requests, nfds_t(requests.count), 0) >= 0 {
      unsafe numbers = requests.filter { $0.revents & Int16(POLLNVAL) == 0 }.map(\.fd)
    } else {
      // One by one, which takes longer.
      unsafe numbers = requests.map(\.fd).filter { fcntl($0, F_GETFD) >= 0 }
    }
  }

  /// Closes them.
  package static func close() {
    for number in unsafe numbers { Glibc.close(number) }
    forget()
  }

  /// They are closed already, and others may have their numbers.
  static func forget() { unsafe numbers = [] }
}
