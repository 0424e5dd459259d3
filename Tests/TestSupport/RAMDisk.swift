import Memory
import Storage
import Synchronization

/// A disk of bytes in memory.
package final class RAMDisk: BlockStore {
  private let contents: Mutex<[UInt8]>
  /// Its size in bytes.
  package let size: UInt64
  /// Never.
  package var isReadOnly: Bool { false }

  /// So many sectors of zeroes.
  package convenience init(sectors: Int) { self.init([UInt8](repeating: 0, count: sectors * 512)) }

  /// With this on it.
  package init(_ bytes: [UInt8]) {
    contents = Mutex(bytes)
    size = UInt64(bytes.count)
  }

  /// What is on it.
  package var bytes: [UInt8] { contents.withLock { $0 } }

  package func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    var place = Int(offset)
    for segment in segments {
      contents.withLock {
        segment.copy(from: $0.span.extracting(place..<place + segment.count), at: 0)
      }
      place += segment.count
    }
  }

  package func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    var place = Int(offset)
    for segment in segments {
      var bytes = [UInt8](repeating: 0, count: segment.count)
      var span = bytes.mutableSpan
      segment.copy(to: &span, from: 0)
      contents.withLock { $0.replaceSubrange(place..<place + bytes.count, with: bytes) }
      place += bytes.count
    }
  }

  package func flush() throws(StorageError) {}
  package func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  package func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}
