import CLinux
import Glibc

/// The space behind an open file: its length, its holes, and when it is safe from a power cut.
extension FileDescriptor {
  /// Returns when the file's contents are on stable storage. Corresponds to `fdatasync(2)`.
  package func synchronizeData() throws(Errno) {
    while fdatasync(number) != 0 {
      if errno != EINTR { throw Errno.current }
    }
  }

  /// Makes the file end after `length` bytes; what is new reads as zeros. Corresponds to
  /// `ftruncate(2)`.
  package func setLength(_ length: UInt64) throws(Errno) {
    guard let length = off_t(exactly: length) else { throw Errno.fileTooLarge }
    while ftruncate(number, length) != 0 {
      if errno != EINTR { throw Errno.current }
    }
  }

  /// Gives the host the space of a range back, which then reads as zeros; the length stays.
  ///
  /// Throws `EOPNOTSUPP` where the file system can't. Works on block devices too. Corresponds to
  /// `fallocate(2)` with `FALLOC_FL_PUNCH_HOLE`.
  package func punchHole(at offset: UInt64, count: UInt64) throws(Errno) {
    try allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count)
  }

  /// Makes a range read as zeros and keeps its space; the length stays.
  ///
  /// Throws `EOPNOTSUPP` where the file system can't. Corresponds to `fallocate(2)` with
  /// `FALLOC_FL_ZERO_RANGE`.
  package func zeroRange(at offset: UInt64, count: UInt64) throws(Errno) {
    try allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, count)
  }

  /// Reserves the space of a range, and lengthens the file to its end. Corresponds to
  /// `fallocate(2)`.
  package func reserve(at offset: UInt64, count: UInt64) throws(Errno) {
    try allocate(0, offset, count)
  }

  private func allocate(_ mode: Int32, _ offset: UInt64, _ count: UInt64) throws(Errno) {
    guard let start = off_t(exactly: offset), let length = off_t(exactly: count) else {
      throw Errno.fileTooLarge
    }
    while fallocate(number, mode, start, length) != 0 {
      if errno != EINTR { throw Errno.current }
    }
  }

  /// What is in a file from some place on.
  package enum Extent: Equatable, Sendable {
    /// Data up to an offset.
    case data(until: UInt64)
    /// A hole up to an offset: it reads as zeros and takes no space.
    case hole(until: UInt64)

    /// Where it ends.
    package var end: UInt64 {
      switch self {
      case .data(let end), .hole(let end): end
      }
    }
  }

  /// Whether there is data at `offset`, which is before the file's end, and up to where. All is data
  /// where the file system doesn't tell. Corresponds to `lseek(2)` with `SEEK_DATA` and `SEEK_HOLE`.
  package func extent(at offset: UInt64, length: UInt64) -> Extent {
    guard let start = off_t(exactly: offset) else { return .data(until: length) }
    let data = lseek(number, start, Int32(CLINUX_SEEK_DATA))
    if data < 0 { return errno == ENXIO ? .hole(until: length) : .data(until: length) }
    if data > start { return .hole(until: min(UInt64(data), length)) }
    let hole = lseek(number, start, Int32(CLINUX_SEEK_HOLE))
    return .data(until: hole <= start ? length : min(UInt64(hole), length))
  }
}

/// A block device of the host's, such as a partition.
extension FileDescriptor {
  /// The size in bytes. Corresponds to `BLKGETSIZE64`.
  package func blockDeviceSize() throws(Errno) -> UInt64 {
    var size: UInt64 = 0
    guard unsafe clinux_block_size(number, &size) == 0 else { throw Errno.current }
    return size
  }
}

/// Which file an open file is, whatever its name, and when it last changed.
package struct FileIdentity: Hashable, Sendable {
  /// The device that it is on. Corresponds to `st_dev`.
  package let device: UInt64
  /// Its number there. Corresponds to `st_ino`.
  package let number: UInt64

  /// What the file is.
  package enum Kind: Sendable {
    /// A regular file.
    case regular
    /// A directory.
    case directory
    /// A block device.
    case blockDevice
    /// Anything else.
    case other
  }
}

/// What the host knows of a file beside its contents. Corresponds to `struct stat`.
package struct FileFacts: Equatable, Sendable {
  /// Which file it is.
  package let identity: FileIdentity
  /// What it is.
  package let kind: FileIdentity.Kind
  /// How many names it has: none once it is removed. Corresponds to `st_nlink`.
  package let names: UInt64
  /// How many bytes it has; 0 for a device.
  package let length: UInt64
  /// How many bytes of the host's disk it takes.
  package let allocated: UInt64
  /// When its contents last changed: seconds since 1970.
  package let modified: Int64
  /// The nanoseconds beside them.
  package let modifiedNanoseconds: Int64

  /// Whether nobody has written to it between these two looks.
  package func hasSameContents(as other: FileFacts) -> Bool {
    length == other.length && modified == other.modified
      && modifiedNanoseconds == other.modifiedNanoseconds
  }
}

extension FileDescriptor {
  /// What the host knows of the file. Corresponds to `fstat(2)`.
  package func facts() throws(Errno) -> FileFacts {
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw Errno.current }
    return FileFacts(status)
  }
}

extension FileFacts {
  /// What the host knows of the file called `path`. Corresponds to `stat(2)`.
  package init(of path: String) throws(Errno) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { throw Errno.current }
    self.init(status)
  }

  init(_ status: stat) {
    let kind: FileIdentity.Kind =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .regular
      case S_IFDIR: .directory
      case S_IFBLK: .blockDevice
      default: .other
      }
    self.init(
      identity: FileIdentity(device: UInt64(status.st_dev), number: UInt64(status.st_ino)),
      kind: kind, names: UInt64(status.st_nlink), length: UInt64(max(0, status.st_size)),
      allocated: UInt64(max(0, status.st_blocks)) * 512,
      modified: Int64(status.st_mtim.tv_sec), modifiedNanoseconds: Int64(status.st_mtim.tv_nsec))
  }
}

extension FileDescriptor {
  /// Makes a file without a name in `directory`, to be read and written: it goes when it is closed.
  ///
  /// Corresponds to `open(2)` with `O_TMPFILE`, and where a file system can't, to a name that is
  /// removed at once.
  package init(unnamedIn directory: String) throws(Errno) {
    let number = unsafe open(directory, O_RDWR | O_CLOEXEC | Int32(CLINUX_O_TMPFILE), 0o600)
    if number >= 0 {
      self.init(owning: number)
      return
    }
    guard errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT else { throw Errno.current }
    let name = "\(directory)/.kvmlite-\(getpid())-\(Clock.monotonicNanoseconds)"
    let file = try FileDescriptor(
      opening: name, [.readWrite, .create, .exclusive], permissions: 0o600)
    unsafe unlink(name)
    self = file
  }
}

extension FileDescriptor {
  /// Makes a file without a name in `directory`, to be read and written, that can be given one by
  /// `FileName.give`: until then nothing of it is left however this process ends.
  ///
  /// Throws where the file system can't, or /proc isn't there. Corresponds to `open(2)` with
  /// `O_TMPFILE`.
  package init(linkableIn directory: String) throws(Errno) {
    guard unsafe access("/proc/self/fd", X_OK) == 0 else { throw Errno.current }
    let number = unsafe open(directory, O_RDWR | O_CLOEXEC | Int32(CLINUX_O_TMPFILE), 0o666)
    guard number >= 0 else { throw Errno.current }
    self.init(owning: number)
  }
}

/// What the environment says.
package enum HostEnvironment {
  /// What the program was started with, its name first. Swift's own list of it comes from /proc, and is
  /// empty where that can't be read; this one is the C library's, kept by CStart, and empty in programs
  /// without that.
  package static var arguments: [String] {
    // Strings that the kernel made, which stay for as long as the program runs.
    (0..<clinux_argument_count()).compactMap { index in
      guard let argument = unsafe clinux_argument(index) else { return nil }
      return unsafe String(cString: argument)
    }
  }

  /// The environment variable `name`; nil where it is unset or empty. Corresponds to `getenv(3)`.
  package static func variable(_ name: String) -> String? {
    guard let value = unsafe getenv(name), unsafe value.pointee != 0 else { return nil }
    return unsafe String(cString: value)
  }

  /// Where files go that may become large and are nobody's later: TMPDIR, or /var/tmp.
  package static var temporaryDirectory: String { variable("TMPDIR") ?? "/var/tmp" }
}
