import Glibc

/// Owns an open file of the host and closes it at the end of its life.
package struct FileDescriptor: ~Copyable, Sendable {
  /// The number the kernel knows the open file by.
  package let number: Int32
  private let isOwned: Bool

  /// Takes over `number`, which nobody else closes.
  package init(owning number: Int32) {
    self.number = number
    self.isOwned = true
  }

  /// Uses `number` without ever closing it, as is right for the standard streams.
  package init(borrowing number: Int32) {
    self.number = number
    self.isOwned = false
  }

  deinit {
    if isOwned { close(number) }
  }

  /// The same open file by another number, `least` or above. Corresponds to `F_DUPFD_CLOEXEC` of
  /// `fcntl(2)`.
  package borrowing func duplicate(from least: Int32 = 0) throws(Errno) -> FileDescriptor {
    let copy = fcntl(number, F_DUPFD_CLOEXEC, least)
    guard copy >= 0 else { throw Errno.current }
    return FileDescriptor(owning: copy)
  }

  /// Whether it was opened to be written, and to be read. Corresponds to `F_GETFL` of `fcntl(2)`.
  package borrowing func openedFor() -> (writes: Bool, reads: Bool) {
    let mode = max(0, fcntl(number, F_GETFL)) & O_ACCMODE
    return (mode != O_RDONLY, mode != O_WRONLY)
  }

  /// How to open a file. Corresponds to the flags of `open(2)`.
  package struct OpenFlags: OptionSet, Sendable {
    /// The flags as `open(2)` takes them.
    package let rawValue: Int32
    /// Takes flags as they are.
    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// For reading only.
    package static let readOnly = OpenFlags(rawValue: O_RDONLY)
    /// For writing only.
    package static let writeOnly = OpenFlags(rawValue: O_WRONLY)
    /// For both.
    package static let readWrite = OpenFlags(rawValue: O_RDWR)
    /// Makes the file if it isn't there.
    package static let create = OpenFlags(rawValue: O_CREAT)
    /// Fails if the file is there already.
    package static let exclusive = OpenFlags(rawValue: O_EXCL)
    /// Empties the file first.
    package static let truncate = OpenFlags(rawValue: O_TRUNC)
    /// Never waits, neither for the open nor for data.
    package static let nonBlocking = OpenFlags(rawValue: O_NONBLOCK)
    /// Doesn't make a terminal the process's own.
    package static let noTerminalControl = OpenFlags(rawValue: O_NOCTTY)
  }

  /// Opens `path`; a new file gets `permissions` less the umask. Corresponds to `open(2)`.
  package init(opening path: String, _ flags: OpenFlags, permissions: UInt32 = 0o666) throws(Errno)
  {
    let number = unsafe open(path, flags.rawValue | O_CLOEXEC, permissions)
    guard number >= 0 else { throw Errno.current }
    self.init(owning: number)
  }

  /// Reads at most `bytes.count` bytes and returns how many came; 0 means the end.
  ///
  /// Throws `EINTR` too: whether to go on after a signal is the caller's decision. Corresponds to
  /// `read(2)`.
  package borrowing func read(into bytes: inout MutableSpan<UInt8>) throws(Errno) -> Int {
    // The kernel writes at most the buffer's length.
    let count = unsafe bytes.withUnsafeMutableBufferPointer {
      unsafe Glibc.read(number, $0.baseAddress, $0.count)
    }
    guard count >= 0 else { throw Errno.current }
    return count
  }

  /// Reads at most `count` bytes and returns those that came; none means the end. After signals it goes
  /// on, unless who calls decides that: then `EINTR` is thrown.
  package borrowing func read(
    atMost count: Int, goesOn: Bool = true
  ) throws(Errno) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    while true {
      do throws(Errno) {
        var span = bytes.mutableSpan
        bytes.removeLast(count - (try read(into: &span)))
        return bytes
      } catch { if error != .interrupted || !goesOn { throw error } }
    }
  }

  /// Writes at most all of `bytes` and returns how many went. Corresponds to `write(2)`.
  package borrowing func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    // The kernel only reads, and within the buffer's length.
    let count = unsafe bytes.withUnsafeBufferPointer {
      unsafe Glibc.write(number, $0.baseAddress, $0.count)
    }
    guard count >= 0 else { throw Errno.current }
    return count
  }

  /// Writes all of `bytes`, going on after signals and partial writes.
  package borrowing func writeAll(_ bytes: Span<UInt8>) throws(Errno) {
    HeldLocks.mayWait()
    var done = 0
    while done < bytes.count {
      do {
        done += try write(bytes.extracting(done..<bytes.count))
      } catch {
        if error.code != EINTR { throw error }
      }
    }
  }

  /// Writes the UTF-8 of `text`.
  package borrowing func writeAll(_ text: String) throws(Errno) {
    try writeAll(Array(text.utf8).span)
  }

  /// Reads into `bytes` from `offset` on and returns how many bytes came. Corresponds to `pread(2)`.
  package borrowing func read(into bytes: inout MutableSpan<UInt8>, at offset: Int) throws(Errno)
    -> Int
  {
    // The kernel writes at most the buffer's length.
    let count = unsafe bytes.withUnsafeMutableBufferPointer {
      unsafe pread(number, $0.baseAddress, $0.count, offset)
    }
    guard count >= 0 else { throw Errno.current }
    return count
  }

  /// Fills `bytes` from `offset` on and returns how many came: fewer only where the file ends. Goes
  /// on after signals and short reads. Corresponds to `pread(2)`.
  package borrowing func readAll(
    into bytes: inout MutableSpan<UInt8>, at offset: Int
  ) throws(Errno) -> Int {
    // The kernel writes at most what is left of the buffer.
    let count = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      var done = 0
      while done < buffer.count, offset <= Int.max - buffer.count {
        let count = unsafe pread(
          number, buffer.baseAddress.map { unsafe $0 + done }, buffer.count - done, offset + done)
        if count == 0 { break }
        if count < 0 && errno != EINTR { return -Int(errno) }
        done += max(0, count)
      }
      return done
    }
    guard count >= 0 else { throw Errno(Int32(-count)) }
    return count
  }

  /// Writes all of `bytes` at `offset`, going on after signals and short writes. Corresponds to
  /// `pwrite(2)`.
  package borrowing func writeAll(_ bytes: Span<UInt8>, at offset: Int) throws(Errno) {
    HeldLocks.mayWait()
    guard offset <= Int.max - bytes.count else { throw Errno.fileTooLarge }
    // The kernel only reads, and within what is left of the buffer.
    let error = unsafe bytes.withUnsafeBufferPointer { buffer -> Int32 in
      var done = 0
      while done < buffer.count {
        let count = unsafe pwrite(
          number, buffer.baseAddress.map { unsafe $0 + done }, buffer.count - done, offset + done)
        // A write that makes no progress would be tried for ever.
        if count == 0 { return EIO }
        if count < 0 && errno != EINTR { return errno }
        done += max(0, count)
      }
      return 0
    }
    guard error == 0 else { throw Errno(error) }
  }

  /// Whether this is a terminal. Corresponds to `isatty(3)`.
  package var isTerminal: Bool { isatty(number) == 1 }
}

extension FileDescriptor {
  /// The kind of file behind a descriptor. Corresponds to `st_mode` of `fstat(2)`.
  package enum Kind: Sendable {
    /// A regular file.
    case regular
    /// A directory.
    case directory
    /// A device, a pipe, a socket.
    case other
  }

  /// Whether who opens or reads the file at `path` may have to wait for somebody else.
  package static func mayBlock(_ path: String) -> Bool {
    var status = stat()
    // The kernel fills the structure.
    guard unsafe stat(path, &status) == 0 else { return false }
    return [S_IFIFO, S_IFSOCK, S_IFCHR].contains(status.st_mode & S_IFMT)
  }

  /// What kind of file this is, and its length in bytes.
  package func status() throws(Errno) -> (kind: Kind, count: Int) {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw Errno.current }
    let kind: Kind =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .regular
      case S_IFDIR: .directory
      default: .other
      }
    return (kind, Int(status.st_size))
  }

  /// Waits until something is there to be read, or nothing will ever be; for `milliseconds` at most.
  /// Returns early after a signal. Corresponds to `poll(2)`.
  package func waitUntilReadable(milliseconds: Int32) {
    var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    unsafe poll(&request, 1, milliseconds)
  }

  /// Whether writing would not block, or an error would come of it, within `milliseconds`; false after
  /// a signal, too. Corresponds to `poll(2)`.
  package func isWritable(within milliseconds: Int32) -> Bool {
    var request = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
    return unsafe poll(&request, 1, milliseconds) == 1
  }

  /// The same until `Clock.monotonicNanoseconds` comes to `deadline`.
  package func isReadable(until deadline: UInt64) -> Bool {
    while true {
      let now = Clock.monotonicNanoseconds
      let left = deadline > now ? deadline - now : 0
      if isReadable(within: Int32(clamping: left / 1_000_000 + (left == 0 ? 0 : 1))) { return true }
      if left == 0 { return false }
    }
  }

  /// Whether reading would not block, waiting up to `milliseconds` for that. Corresponds to `poll(2)`.
  package func isReadable(within milliseconds: Int32) -> Bool {
    var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, milliseconds) == 1
  }

  /// Waits until writing would not block. Returns early after a signal. Corresponds to `poll(2)`.
  package func waitUntilWritable() {
    var request = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
    unsafe poll(&request, 1, -1)
  }
}

extension FileDescriptor {
  /// Whether there is a file at `path`. Corresponds to `access(2)`.
  package static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }
}

extension FileDescriptor {
  /// Makes calls that would wait fail with `EAGAIN`. Corresponds to `O_NONBLOCK`.
  package borrowing func neverWait() {
    _ = fcntl(number, F_SETFL, max(0, fcntl(number, F_GETFL)) | O_NONBLOCK)
  }

  /// Puts nothing at the numbers 0 and 1, which have other owners now. Corresponds to `dup2(2)`.
  package static func closeStandardStreams() throws(Errno) {
    let null = try FileDescriptor(opening: "/dev/null", [.readWrite])
    guard dup2(null.number, 0) == 0, dup2(null.number, 1) == 1 else { throw Errno.current }
  }

  /// Puts at number 2 what is at 0.
  package static func leaveStandardError() { dup2(0, 2) }

  /// Puts something at the numbers 0 to 2 that were closed when the program started, so that no file
  /// it opens gets them: reading and writing fail there as they would have.
  package static func reserveStandardStreams() {
    for number in Int32(0)...2 where fcntl(number, F_GETFD) < 0 {
      // open(2) gives the lowest free number, which is this one.
      _ = unsafe open("/dev/null", number == 0 ? O_WRONLY : O_RDONLY)
    }
  }
}

/// Names in a directory of the host.
package enum Directory {
  /// The names in `path`, without `.` and `..`, in no particular order; none if it can't be read.
  ///
  /// Corresponds to `readdir(3)`.
  package static func names(in path: String) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    // An entry is valid until the next call, and its name ends in a zero byte.
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}
