import CLinux
import Glibc

/// What a process has open from whoever started it, besides the standard streams.
package enum InheritedFiles {
  // Set once, before there are other threads.
  private nonisolated(unsafe) static var numbers: [Int32]?
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

  /// The open file `number`, one of them: by a number of ours. Corresponds to `F_DUPFD_CLOEXEC` of
  /// `fcntl(2)`.
  package static func copy(of number: Int32) throws(Errno) -> FileDescriptor {
    guard has(number) else { throw .badDescriptor }
    return try FileDescriptor(borrowing: number).duplicate()
  }

  /// What the open file `number` is called, as far as it is known.
  package static func name(of number: Int32) -> String {
    (has(number) ? FileName.target(of: "/proc/self/fd/\(number)") : nil)
      ?? "file descriptor \(number)"
  }

  // In a process that noted nothing all files are its caller's.
  private static func has(_ number: Int32) -> Bool { unsafe numbers?.contains(number) ?? true }

  /// Closes them, but for those in `kept`: whoever waits for the end of a pipe doesn't wait for ours.
  package static func close(but kept: [Int32] = []) {
    for number in unsafe numbers ?? [] where !kept.contains(number) { Glibc.close(number) }
    // Others may have their numbers.
    unsafe numbers = numbers?.filter(kept.contains)
  }
}
