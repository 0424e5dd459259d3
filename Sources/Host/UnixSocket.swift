import CLinux
import Glibc

/// An open file that several parties hold, such as one that came from another process.
package final class SharedDescriptor: Sendable {
  /// The file.
  package let file: FileDescriptor

  /// Takes `file` over.
  package init(_ file: consuming FileDescriptor) { self.file = file }
}

/// A stream between two processes of one machine that carries open files too.
///
/// Corresponds to `unix(7)` with `SOCK_STREAM` and `SCM_RIGHTS`.
package struct UnixSocket: ~Copyable, Sendable {
  /// At most so many open files go with one piece of data.
  package static let mostDescriptors = Int(CLINUX_MOST_DESCRIPTORS)

  /// The socket itself, to wait for.
  package let descriptor: FileDescriptor

  /// Takes over a connected socket.
  package init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

  /// What travels.
  package enum Kind: Sendable {
    /// Bytes, in whatever pieces they come.
    case stream
    /// Messages, each whole (`SOCK_SEQPACKET`).
    case messages

    fileprivate var number: Int32 {
      let kind = self == .stream ? SOCK_STREAM : SOCK_SEQPACKET
      return Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    }
  }

  /// Connects to who listens at `path`, whatever signals come.
  package init(connectingTo path: String, _ kind: Kind = .stream) throws(Errno) {
    let descriptor = try Self.make(kind)
    while unsafe clinux_unix_name(descriptor.number, path, 0) != 0 {
      guard Errno.current == .interrupted else { throw Errno.current }
    }
    self.descriptor = descriptor
  }

  /// A socket that is connected to the one that it puts into `other`. Corresponds to `socketpair(2)`.
  package init(pairedWith other: inout UnixSocket?, _ kind: Kind = .stream) throws(Errno) {
    var ends: [Int32] = [-1, -1]
    // The kernel writes two numbers.
    guard unsafe socketpair(AF_UNIX, kind.number, 0, &ends) == 0 else {
      throw Errno.current
    }
    other = UnixSocket(FileDescriptor(owning: ends[1]))
    descriptor = FileDescriptor(owning: ends[0])
  }

  /// Another number for the open file `number`, if that is a Unix socket of this kind: `ENOTSOCK` and
  /// `EPROTOTYPE` if it isn't. Corresponds to `SO_TYPE` and `F_DUPFD_CLOEXEC`.
  package static func duplicate(_ number: Int32, _ kind: Kind) throws(Errno) -> FileDescriptor {
    var type: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    // The kernel writes one number.
    guard unsafe getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &size) == 0 else {
      throw Errno.current
    }
    guard type == kind.number & ~Int32(SOCK_CLOEXEC.rawValue) else { throw Errno(EPROTOTYPE) }
    return try FileDescriptor(borrowing: number).duplicate()
  }

  fileprivate static func make(_ kind: Kind, waits: Bool = true) throws(Errno) -> FileDescriptor {
    let never = waits ? 0 : Int32(SOCK_NONBLOCK.rawValue)
    let number = socket(AF_UNIX, kind.number | never, 0)
    guard number >= 0 else { throw Errno.current }
    return FileDescriptor(owning: number)
  }

  /// Sends `bytes`, with up to `mostDescriptors` open files, without waiting: throws `EAGAIN` where the
  /// other side doesn't read, and never goes half way.
  package borrowing func send(_ bytes: Span<UInt8>, descriptors: [Int32] = []) throws(Errno) {
    var done = 0
    while done < bytes.count {
      let left = bytes.extracting(done..<bytes.count)
      // The kernel only reads, and within both lengths. The files go with the first byte.
      let count = unsafe left.withUnsafeBufferPointer { part in
        unsafe descriptors.withUnsafeBufferPointer { files in
          unsafe clinux_send(
            descriptor.number, part.baseAddress, part.count, files.baseAddress,
            done == 0 ? files.count : 0)
        }
      }
      if count < 0 && errno != EINTR { throw Errno.current }
      done += max(0, count)
    }
  }

  /// Takes what has come, at most `bytes.count` bytes, and adds the files that came with it to
  /// `files`. Returns how many bytes those were: 0 at the end of the stream, nil if none are there.
  package borrowing func receive(
    into bytes: inout MutableSpan<UInt8>, files: inout [SharedDescriptor]
  ) throws(Errno) -> Int? {
    var numbers = [Int32](repeating: -1, count: Self.mostDescriptors)
    var fileCount = 0
    // The kernel writes within the buffer's length, the shim no more than that many numbers.
    let count = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      unsafe clinux_receive(
        descriptor.number, buffer.baseAddress, buffer.count, &numbers, &fileCount)
    }
    let error = Errno.current
    for number in numbers.prefix(fileCount) {
      files.append(SharedDescriptor(FileDescriptor(owning: number)))
    }
    if count >= 0 { return count }
    if error == .tryAgain { return nil }
    throw error
  }

  /// Who is on the other side, as a user's number; nil if the kernel doesn't say. Corresponds to
  /// `SO_PEERCRED`.
  package var peerUser: UInt32? { UInt32(exactly: clinux_peer_user(descriptor.number)) }

  /// The process that is on the other side, or was when it connected or listened; nil if the kernel
  /// doesn't say.
  package var peerProcess: Int32? {
    let process = clinux_peer_process(descriptor.number)
    return process > 0 ? process : nil
  }

  /// Sends as much of `bytes` as there is room for, without waiting, and returns how much that was;
  /// throws `EAGAIN` where there is none.
  package borrowing func sendPart(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    while true {
      // The kernel only reads, and within the length.
      let count = unsafe bytes.withUnsafeBufferPointer { part in
        unsafe clinux_send(descriptor.number, part.baseAddress, part.count, nil, 0)
      }
      if count >= 0 { return count }
      if errno != EINTR { throw Errno.current }
    }
  }

  /// Ends the connection both ways, for all who have it: nothing more is sent, and who waits for the
  /// other side is told of its end. Corresponds to `shutdown(2)`.
  package borrowing func end() { shutdown(descriptor.number, Int32(SHUT_RDWR)) }

  /// Says that nothing more will be sent. Corresponds to `shutdown(2)`.
  package borrowing func endSending() { shutdown(descriptor.number, Int32(SHUT_WR)) }
}

/// A name in the file system that others connect to; it goes when this does.
package struct UnixListener: ~Copyable, Sendable {
  /// Readable when somebody wants to connect.
  package let descriptor: FileDescriptor
  /// The name.
  package let path: String
  private let removal: Errand?

  /// Takes over a socket that listens; its name is its maker's.
  package init(listening descriptor: consuming FileDescriptor) {
    descriptor.neverWait()
    path = ""
    removal = nil
    self.descriptor = descriptor
  }

  /// Listens at `path`. The socket that a process left there which is gone is replaced; one that
  /// somebody listens at isn't, nor any other file: `EADDRINUSE`. Unless `waits`, nothing that is done
  /// with the descriptor waits.
  package init(
    at path: String, _ kind: UnixSocket.Kind = .stream, waits: Bool = true
  ) throws(Errno) {
    let descriptor = try UnixSocket.make(kind, waits: waits)
    if unsafe clinux_unix_name(descriptor.number, path, 1) != 0 {
      let error = Errno.current
      guard error == Errno(EADDRINUSE), Self.isDeserted(path, kind) else { throw error }
      guard unsafe unlink(path) == 0, unsafe clinux_unix_name(descriptor.number, path, 1) == 0
      else { throw Errno.current }
    }
    guard listen(descriptor.number, 64) == 0, let file = Self.identity(of: path) else {
      let error = Errno.current
      // Nobody would remove the name later.
      unsafe unlink(path)
      throw error
    }
    self.descriptor = descriptor
    self.path = path
    // Somebody may put another file in its place.
    removal = Errand(.remove(path, file))
  }

  deinit { removeName() }

  /// Lets nobody connect any more by this name; others' sockets stay.
  package borrowing func removeName() {
    _ = try? removal?.perform()
  }

  static func identity(of path: String) -> FileIdentity? {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { return nil }
    return FileIdentity(device: UInt64(status.st_dev), number: UInt64(status.st_ino))
  }

  /// Other files refuse a connection in the same way.
  private static func isDeserted(_ path: String, _ kind: UnixSocket.Kind) -> Bool {
    guard StreamSocket.exists(path) else { return false }
    do {
      _ = try UnixSocket(connectingTo: path, kind)
      return false
    } catch { return error == Errno(ECONNREFUSED) }
  }

  /// Takes the next connection; waits for one.
  package borrowing func accept() throws(Errno) -> UnixSocket {
    while true {
      let number = accept4(descriptor.number, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
      if number >= 0 { return UnixSocket(FileDescriptor(owning: number)) }
      if errno != EINTR && errno != ECONNABORTED { throw Errno.current }
    }
  }
}
