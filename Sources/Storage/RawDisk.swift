import Host
import Memory
import Synchronization

/// A disk whose bytes are those of a file or block device.
package final class RawDisk: BlockStore {
  /// How many bytes the disk has.
  package let size: UInt64
  /// Whether writes are refused.
  package let isReadOnly: Bool
  let file: any DiskFile
  // Set where nobody said that the file is raw: then it must not begin as one of another format.
  private let guardsStart: Bool
  private let startLock = Mutex(())

  /// A disk on `file`, whose length it keeps; a last sector that isn't whole is filled up with zeros.
  ///
  /// `wasGuessed` says that the format was found by looking for other formats' magic numbers: then
  /// no write can put one there, so that a guest can't choose what its disk is taken for next time.
  package init(_ file: any DiskFile, isReadOnly: Bool, wasGuessed: Bool = false)
    throws(StorageError)
  {
    let length = try file.length()
    guard length <= UInt64(Int64.max) - 511 else { throw .corrupt("larger than any disk") }
    self.file = file
    self.isReadOnly = isReadOnly
    size = (length + 511) & ~511
    guardsStart = wasGuessed
  }

  /// Fills memory with the bytes from `offset` on.
  package func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let count = segments.byteCount
    try checkRange(offset, UInt64(count))
    let came = try file.read(into: segments, at: offset)
    guard came < count else { return }
    // Less than a sector may be missing: the file's length needn't be a multiple of one.
    guard offset + UInt64(came) > size - 512, offset + UInt64(count) > (size - 512) else {
      throw .truncated
    }
    segments.zero(came, count: count - came)
  }

  /// Writes bytes from `offset` on.
  package func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try checkWrite(offset, UInt64(segments.byteCount))
    if guardsStart, offset < 4 {
      try writeStart(segments, at: Int(offset))
    } else {
      try file.write(from: segments, at: offset)
    }
  }

  /// Returns when all that was written is on stable storage.
  package func flush() throws(StorageError) {
    if !isReadOnly { try file.flush() }
  }

  /// Makes a range read as zeros.
  package func writeZeroes(
    at offset: UInt64, count: UInt64, mayUnmap: Bool
  ) throws(StorageError) {
    try checkWrite(offset, count)
    try file.zero(at: offset, count: count, mayUnmap: mayUnmap)
  }

  /// Lets the contents of a range go.
  package func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try checkWrite(offset, count)
    try file.zero(at: offset, count: count, mayUnmap: true)
  }

  /// Writes what covers some of the first four bytes, which the guest must not see changed between
  /// the look at them and the write: they are taken into memory that is ours alone.
  private func writeStart(
    _ segments: [MemoryView], at offset: Int
  ) throws(StorageError) {
    let count = segments.byteCount
    guard count > 0 else { return }
    let covered = min(4 - offset, count)
    let failure: StorageError? = startLock.withLock { _ in
      do throws(StorageError) {
        var start = [UInt8](repeating: 0, count: 4)
        var span = start.mutableSpan
        _ = try file.read(into: &span, at: 0)
        var taken: [UInt8] = []
        for segment in segments.slice(0, count: covered) {
          for index in 0..<segment.count { taken.append(segment.load(index, as: UInt8.self)) }
        }
        start.replaceSubrange(offset..<offset + covered, with: taken)
        guard start != Qcow2Header.magic else { throw .host(.notPermitted) }
        try file.write(taken.span, at: UInt64(offset))
        return nil
      } catch { return error }
    }
    if let failure { throw failure }
    if count > covered {
      try file.write(
        from: segments.slice(covered, count: count - covered), at: UInt64(offset + covered))
    }
  }
}

extension BlockStore {
  /// Throws unless `count` bytes from `offset` on are all on the disk.
  func checkRange(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    guard offset <= size, count <= size - offset else { throw .outOfRange }
  }

  /// The same, for what changes the disk.
  func checkWrite(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    guard !isReadOnly else { throw .readOnly }
    try checkRange(offset, count)
  }
}
