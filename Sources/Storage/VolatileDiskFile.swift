import Host
import Memory

/// A file that needn't survive anything: flushing costs nothing.
final class VolatileDiskFile: DiskFile {
  private let file: HostDiskFile

  init(_ file: HostDiskFile) { self.file = file }

  var growsWithZeros: Bool { file.growsWithZeros }
  func length() throws(StorageError) -> UInt64 { try file.length() }
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) -> Int {
    try file.read(into: segments, at: offset)
  }
  func read(
    into bytes: inout MutableSpan<UInt8>, at offset: UInt64
  ) throws(StorageError) -> Int { try file.read(into: &bytes, at: offset) }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try file.write(from: segments, at: offset)
  }
  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    try file.write(bytes, at: offset)
  }
  func flush() throws(StorageError) {}
  func setLength(_ length: UInt64) throws(StorageError) { try file.setLength(length) }
  func zero(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    try file.zero(at: offset, count: count, mayUnmap: mayUnmap)
  }
  func extent(at offset: UInt64, length: UInt64) -> FileDescriptor.Extent {
    file.extent(at: offset, length: length)
  }
}
