import CLinux
import Glibc
import Host

/// Sockets and devices that never wait, whose bytes go straight from and to guest memory, one system call
/// each. Interrupted, that is made again: who is told once that something has come must not miss it.
extension FileDescriptor {
  /// Writes the bytes of `first` and then those of `segments`, all in one call, and returns how many
  /// went. Corresponds to `writev(2)`.
  public borrowing func write(
    _ first: MemoryView, _ segments: [MemoryView]
  ) throws(Errno) -> Int {
    unsafe try call(first, segments) { unsafe writev($0, $1, Int32($2)) }
  }

  /// The same for a socket: no signal when its peer has closed. Corresponds to `sendmsg(2)`.
  public borrowing func send(
    _ first: MemoryView, _ segments: [MemoryView]
  ) throws(Errno) -> Int {
    unsafe try call(first, segments) { number, vector, count in
      var message = unsafe msghdr()
      unsafe message.msg_iov = UnsafeMutablePointer(mutating: vector)
      unsafe message.msg_iovlen = count
      let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
      return unsafe sendmsg(number, &message, flags)
    }
  }

  /// Reads into `segments`, one after the other, and returns how many bytes came; 0 means the end.
  /// Corresponds to `readv(2)`.
  public borrowing func read(into segments: [MemoryView]) throws(Errno) -> Int {
    unsafe try call(nil, segments) { unsafe readv($0, $1, Int32($2)) }
  }

  /// Reads into all of `view`.
  public borrowing func read(into view: MemoryView) throws(Errno) -> Int {
    unsafe try call(view, []) { unsafe readv($0, $1, Int32($2)) }
  }

  private borrowing func call(
    _ first: MemoryView?, _ segments: [MemoryView],
    _ body: (Int32, UnsafePointer<iovec>, Int) -> Int
  ) throws(Errno) -> Int {
    let number = self.number
    // IOV_MAX of Linux: the most that one call takes.
    let capacity = min(segments.count + (first == nil ? 0 : 1), 1024)
    guard capacity > 0 else { throw Errno.invalidArgument }
    // Sound: the kernel is given addresses and lengths of the views, all of which is inside them, and
    // the views keep their memory mapped until the call is over.
    let count = unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: capacity) { vector in
      var used = 0
      if let first {
        unsafe vector.initializeElement(at: 0, to: iovec(of: first))
        used = 1
      }
      for index in 0..<capacity - used {
        unsafe vector.initializeElement(at: used + index, to: iovec(of: segments[index]))
      }
      guard let base = vector.baseAddress else { return -Int(EINVAL) }
      var count: Int
      repeat { count = unsafe body(number, base, capacity) } while count < 0 && errno == EINTR
      return count < 0 ? -Int(errno) : count
    }
    guard count >= 0 else { throw Errno(Int32(-count)) }
    return count
  }
}

extension iovec {
  fileprivate init(of view: MemoryView) {
    unsafe self.init(iov_base: view.pointer(0, view.count), iov_len: view.count)
  }
}
