import CLinux
import Glibc

/// TCP, to and at addresses in digits: names would need the C library's resolver, which a static program
/// hasn't got.
package enum TCPSocket {
  /// An address and a port.
  package struct Place: Sendable {
    /// As `inet_pton(3)` reads it; `localhost` is 127.0.0.1.
    let address: String
    let port: UInt16
    private var isVersion6: Bool { address.utf8.contains(UInt8(ascii: ":")) }

    /// `ADDRESS:PORT`, or only a port on this host; an IPv6 address is in brackets. Nil for anything else.
    package init?(_ text: String) {
      guard let colon = text.lastIndex(of: ":") else {
        guard let port = UInt16(text), port > 0 else { return nil }
        (address, self.port) = ("127.0.0.1", port)
        return
      }
      var host = String(text[..<colon])
      if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
      guard let port = UInt16(text[text.index(after: colon)...]), port > 0 else { return nil }
      self.port = port
      address = host == "localhost" ? "127.0.0.1" : host
      guard unsafe (try? withAddress { _, _ throws(Errno) in }) != nil else { return nil }
    }

    /// Calls `body` with it as the kernel has it.
    fileprivate func withAddress(
      _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Void
    ) throws(Errno) {
      var six = sockaddr_in6()
      var four = sockaddr_in()
      (six.sin6_family, six.sin6_port) = (sa_family_t(AF_INET6), port.bigEndian)
      (four.sin_family, four.sin_port) = (sa_family_t(AF_INET), port.bigEndian)
      let isRead =
        unsafe isVersion6
        ? inet_pton(AF_INET6, address, &six.sin6_addr) : inet_pton(AF_INET, address, &four.sin_addr)
      guard isRead == 1 else { throw .invalidArgument }
      var failure: Errno?
      func call(_ pointer: UnsafeRawPointer, _ count: Int) {
        // The address is what its first field says, and as long as told.
        let address = unsafe pointer.assumingMemoryBound(to: sockaddr.self)
        do throws(Errno) { unsafe try body(address, socklen_t(count)) } catch { failure = error }
      }
      if isVersion6 {
        unsafe call(&six, MemoryLayout<sockaddr_in6>.size)
      } else {
        unsafe call(&four, MemoryLayout<sockaddr_in>.size)
      }
      if let failure { throw failure }
    }

    fileprivate func makeSocket() throws(Errno) -> FileDescriptor {
      let kind = Int32(SOCK_STREAM.rawValue) | O_CLOEXEC
      let number = socket(isVersion6 ? AF_INET6 : AF_INET, kind, 0)
      guard number >= 0 else { throw Errno.current }
      return FileDescriptor(owning: number)
    }
  }

  /// Connects to `place`, however long that takes. Corresponds to `connect(2)`.
  package static func connect(to place: Place) throws(Errno) -> FileDescriptor {
    let descriptor = try place.makeSocket()
    unsafe try place.withAddress { (address, count) throws(Errno) in
      guard unsafe Glibc.connect(descriptor.number, address, count) == 0 else {
        throw Errno.current
      }
    }
    return descriptor
  }

  /// Listens at `place`. Corresponds to `listen(2)`.
  package static func listen(at place: Place) throws(Errno) -> FileDescriptor {
    let descriptor = try place.makeSocket()
    var on: Int32 = 1
    _ = unsafe setsockopt(
      descriptor.number, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
    unsafe try place.withAddress { (address, count) throws(Errno) in
      guard unsafe bind(descriptor.number, address, count) == 0,
        Glibc.listen(descriptor.number, 1) == 0
      else { throw Errno.current }
    }
    return descriptor
  }
}
