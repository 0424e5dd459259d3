import Host
import Memory
import Synchronization

/// A file of the host's that holds a disk image: what image formats are made of.
///
/// Calls wait for the host; several threads may call at once.
package protocol DiskFile: AnyObject, Sendable {
  /// How many bytes it has now.
  func length() throws(StorageError) -> UInt64

  /// Fills `segments` with the bytes from `offset` on and returns how many came: fewer than asked for
  /// only where the file ends.
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) -> Int

  /// Fills `bytes` from `offset` on and returns how many came: fewer only where the file ends.
  func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError) -> Int

  /// Writes all of `segments` from `offset` on; a file that is shorter grows.
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError)

  /// Writes all of `bytes` from `offset` on; a file that is shorter grows.
  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError)

  /// Returns when all that was written before is on stable storage. Once this has failed it fails for
  /// ever: nobody knows any longer what was lost.
  func flush() throws(StorageError)

  /// Makes the file end after `length` bytes; what is new reads as zeros.
  func setLength(_ length: UInt64) throws(StorageError)

  /// Makes `count` bytes from `offset` on zeros, all of them before the end; `mayUnmap` lets the
  /// space for them go.
  func zero(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError)

  /// Whether the file has data at `offset` or a hole, and up to where. `offset` is before the end.
  func extent(at offset: UInt64, length: UInt64) -> FileDescriptor.Extent

  /// Whether what lies beyond the end reads as zeros once the file grows; not so for a device.
  var growsWithZeros: Bool { get }
}

extension DiskFile {
  /// Exactly the `count` bytes from `offset` on; fewer are `StorageError.truncated`.
  func bytes(at offset: UInt64, count: Int) throws(StorageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    guard try read(into: &span, at: offset) == count else { throw .truncated }
    return bytes
  }
}

/// An open file or block device of the host's.
package final class HostDiskFile: DiskFile {
  /// The name it was opened by.
  package let path: String
  /// What it was when it was opened.
  package let facts: FileFacts
  let descriptor: FileDescriptor
  private let deviceSize: UInt64?
  private let flushFailure = FlushFailure()
  // How long the file has been at most: nobody here makes it shorter unsaid.
  private let longest: Mutex<UInt64>

  /// Opens `path`, a regular file or block device.
  package convenience init(_ path: String, isReadOnly: Bool) throws(Errno) {
    // Non-blocking, so that a pipe of that name is refused instead of waited for.
    let descriptor = try FileDescriptor(
      opening: path, [isReadOnly ? .readOnly : .readWrite, .nonBlocking, .noTerminalControl])
    try self.init(descriptor, path: path)
  }

  /// Takes over an open file called `path`.
  package init(_ descriptor: consuming FileDescriptor, path: String) throws(Errno) {
    self.path = path
    facts = try descriptor.facts()
    switch facts.kind {
    case .regular: deviceSize = nil
    case .blockDevice: deviceSize = try descriptor.blockDeviceSize()
    case .directory: throw Errno.isDirectory
    case .other: throw Errno.invalidArgument
    }
    self.descriptor = descriptor
    longest = Mutex(facts.length)
  }

  deinit { descriptor.unlockAll() }

  /// Whether what lies beyond the end reads as zeros: not so for a device.
  package var growsWithZeros: Bool { deviceSize == nil }

  /// How many bytes the file has now.
  package func length() throws(StorageError) -> UInt64 {
    if let deviceSize { return deviceSize }
    return try host { () throws(Errno) in try descriptor.facts().length }
  }

  /// Fills memory with the bytes from `offset` on.
  package func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) -> Int {
    try host { () throws(Errno) in try descriptor.read(into: segments, at: offset) }
  }

  /// Fills memory with the bytes from `offset` on.
  package func read(
    into bytes: inout MutableSpan<UInt8>, at offset: UInt64
  ) throws(StorageError) -> Int {
    guard let place = Int(exactly: offset) else { return 0 }
    do throws(Errno) { return try descriptor.readAll(into: &bytes, at: place) } catch {
      throw .host(error)
    }
  }

  /// Writes bytes from `offset` on.
  package func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try host { () throws(Errno) in try descriptor.write(from: segments, at: offset) }
  }

  /// Writes bytes from `offset` on.
  package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    guard let place = Int(exactly: offset) else { throw .host(.fileTooLarge) }
    try host { () throws(Errno) in try descriptor.writeAll(bytes, at: place) }
  }

  /// Returns when all that was written is on stable storage, in a file that is still all there.
  package func flush() throws(StorageError) {
    try flushFailure.flushing { () throws(StorageError) in
      if deviceSize == nil { try checkIsThere() }
      // Linux calls pages clean that it failed to write: the next call would say that all is well.
      try host { () throws(Errno) in try descriptor.synchronizeData() }
    }
  }

  /// Throws if somebody has removed the file or cut it off: what was written may be nowhere then.
  private func checkIsThere() throws(StorageError) {
    // The look is inside the lock: a length that was seen earlier may be less than another thread has
    // seen since.
    let (now, isShorter) = try host { () throws(Errno) in
      try longest.withLock { longest throws(Errno) in
        let now = try descriptor.facts()
        defer { longest = max(longest, now.length) }
        return (now, now.length < longest)
      }
    }
    // New and temporary images have no name from the start.
    guard now.names > 0 || facts.names == 0 else { throw .removed }
    // What is missing is a hole now, or will be: no later flush can make it good.
    if isShorter { throw .truncated }
  }

  /// Makes the file end after `length` bytes.
  package func setLength(_ length: UInt64) throws(StorageError) {
    longest.withLock { $0 = min($0, length) }
    try host { () throws(Errno) in try descriptor.setLength(length) }
  }

  /// Makes a range zeros.
  package func zero(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    guard count > 0 else { return }
    do throws(Errno) {
      if mayUnmap {
        try descriptor.punchHole(at: offset, count: count)
      } else {
        try descriptor.zeroRange(at: offset, count: count)
      }
    } catch {
      guard error == .notSupported || error == .invalidArgument || error == .noSuchDevice else {
        throw .host(error)
      }
      try writeZeros(at: offset, count: count)
    }
  }

  /// Data or hole, and up to where.
  package func extent(at offset: UInt64, length: UInt64) -> FileDescriptor.Extent {
    descriptor.extent(at: offset, length: length)
  }

  private func host<Result>(_ body: () throws(Errno) -> Result) throws(StorageError) -> Result {
    do { return try body() } catch { throw .host(error) }
  }
}

extension DiskFile {
  /// Writes `count` zeros from `offset` on.
  func writeZeros(at offset: UInt64, count: UInt64) throws(StorageError) {
    let zeros = [UInt8](repeating: 0, count: Int(min(count, 1 << 20)))
    var done: UInt64 = 0
    while done < count {
      let length = min(count - done, UInt64(zeros.count))
      try write(zeros.span.extracting(0..<Int(length)), at: offset + done)
      done += length
    }
  }
}
