import CLinux
import Glibc

/// Stream sockets between processes of this host, none of which ever waits. Corresponds to `unix(7)`.
package enum StreamSocket {
  /// The longest path that a socket can have, in bytes.
  package static let longestPath = 107

  private static let kind = Int32(SOCK_STREAM.rawValue) | O_CLOEXEC | O_NONBLOCK

  /// Makes two sockets that are connected with each other; both numbers are the caller's to own. The
  /// second is for another program, which may count on its calls to wait, if `secondWaits`.
  ///
  /// Corresponds to `socketpair(2)`.
  package static func makePair(secondWaits: Bool = false) throws(Errno) -> (Int32, Int32) {
    var numbers: (Int32, Int32) = (-1, -1)
    // The kernel writes two numbers.
    let result = unsafe withUnsafeMutablePointer(to: &numbers) {
      unsafe $0.withMemoryRebound(to: Int32.self, capacity: 2) {
        unsafe socketpair(AF_UNIX, kind, 0, $0)
      }
    }
    guard result == 0 else { throw Errno.current }
    if secondWaits { _ = fcntl(numbers.1, F_SETFL, O_RDWR) }
    return numbers
  }

  /// Connects to the socket at `path`, whatever signals come. Corresponds to `connect(2)`.
  package static func connect(to path: String) throws(Errno) -> FileDescriptor {
    let descriptor = try make()
    unsafe try withAddress(path) { (address, count) throws(Errno) in
      while unsafe Glibc.connect(descriptor.number, address, count) != 0 {
        guard Errno.current == .interrupted else { throw Errno.current }
      }
    }
    return descriptor
  }

  /// Whether the file at `path` is a socket. Corresponds to `lstat(2)`.
  package static func exists(_ path: String) -> Bool {
    var status = stat()
    return unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
  }

  private static func make() throws(Errno) -> FileDescriptor {
    let number = socket(AF_UNIX, kind, 0)
    guard number >= 0 else { throw Errno.current }
    return FileDescriptor(owning: number)
  }

  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Void
  ) throws(Errno) {
    let bytes = Array(path.utf8)
    guard !bytes.isEmpty, bytes.count <= longestPath, !bytes.contains(0) else {
      throw Errno(ENAMETOOLONG)
    }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
    let count = socklen_t(MemoryLayout<sockaddr_un>.size)
    var failure: Errno?
    // The address is what its first field says, and as long as told.
    unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        do throws(Errno) { unsafe try body(address, count) } catch { failure = error }
      }
    }
    if let failure { throw failure }
  }
}

extension FileDescriptor {
  /// Which directions of a socket are meant. Corresponds to the second argument of `shutdown(2)`.
  package enum SocketDirection: Sendable {
    /// What comes from the peer.
    case receiving
    /// What goes to it.
    case sending
  }

  /// The next connection at a listening socket; nil if there is none. Corresponds to `accept(2)`.
  package borrowing func accept() throws(Errno) -> FileDescriptor? {
    let number = clinux_accept(self.number)
    if number >= 0 { return FileDescriptor(owning: number) }
    guard Errno.current == .tryAgain else { throw Errno.current }
    return nil
  }

  /// Ends one direction of a socket. Corresponds to `shutdown(2)`.
  package borrowing func shutDown(_ direction: SocketDirection) {
    let how = direction == .receiving ? SHUT_RD : SHUT_WR
    Glibc.shutdown(number, Int32(how))
  }

  /// Sends at most all of `bytes` and returns how many went; without room, `EAGAIN`. A peer that has
  /// closed makes this an error, not a signal. Corresponds to `send(2)`.
  package borrowing func send(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    // The kernel only reads, and within the buffer's length.
    let count = unsafe bytes.withUnsafeBufferPointer {
      unsafe Glibc.send(
        number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    }
    guard count >= 0 else { throw Errno.current }
    return count
  }

  /// Waits until writing would not block or `milliseconds` have passed; a signal ends it early.
  ///
  /// Corresponds to `poll(2)`.
  package borrowing func waitUntilWritable(milliseconds: Int32) {
    var request = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
    unsafe poll(&request, 1, milliseconds)
  }

  /// Whether a socket's peer has closed both directions.
  package var isHungUp: Bool {
    var request = pollfd(fd: number, events: 0, revents: 0)
    return unsafe poll(&request, 1, 0) == 1 && request.revents & Int16(POLLHUP | POLLERR) != 0
  }
}
