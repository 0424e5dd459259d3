import Host
import Memory
import Storage
import Synchronization

/// A disk in memory, with sectors that can't be read or written.
final class MemoryStore: BlockStore {
  struct Contents {
    var bytes: [UInt8]
    var badSectors: Set<UInt64> = []
    var flushes = 0
    var flushFails = false
    var discarded: [Range<UInt64>] = []
    var isHeld = false
  }

  let size: UInt64
  let isReadOnly: Bool
  private let contents: Mutex<Contents>

  /// Every sector is full of its number's low byte, plus 1.
  init(sectors: Int, isReadOnly: Bool = false) {
    size = UInt64(sectors) * 512
    self.isReadOnly = isReadOnly
    let bytes = (0..<sectors).flatMap { [UInt8](repeating: UInt8(($0 + 1) & 0xFF), count: 512) }
    contents = Mutex(Contents(bytes: bytes))
  }

  var bytes: [UInt8] { contents.withLock { $0.bytes } }
  func sector(_ number: Int) -> [UInt8] { Array(bytes[number * 512..<number * 512 + 512]) }
  func sectors(_ range: Range<Int>) -> [UInt8] {
    Array(bytes[range.lowerBound * 512..<range.upperBound * 512])
  }
  var flushes: Int { contents.withLock { $0.flushes } }
  var discarded: [Range<UInt64>] { contents.withLock { $0.discarded } }
  func spoil(_ sectors: UInt64...) { contents.withLock { $0.badSectors = Set(sectors) } }
  func fill(_ bytes: [UInt8]) { contents.withLock { $0.bytes = bytes } }
  func failFlushes() { contents.withLock { $0.flushFails = true } }
  /// Makes transfers wait, or lets them go on.
  func hold(_ isHeld: Bool) { contents.withLock { $0.isHeld = isHeld } }

  private func check(_ offset: UInt64, _ count: Int) throws(StorageError) {
    while contents.withLock({ $0.isHeld }) { yieldProcessor() }
    let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
    guard !overflow, end <= size else { throw .outOfRange }
    let bad = contents.withLock { $0.badSectors }
    for sector in bad where sector * 512 < end && (sector + 1) * 512 > offset {
      throw .host(.inputOutput)
    }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try check(offset, segments.byteCount)
    var position = Int(offset)
    for segment in segments {
      let end = position + segment.count
      contents.withLock { segment.copy(from: $0.bytes.span.extracting(position..<end), at: 0) }
      position = end
    }
  }

  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    guard !isReadOnly else { throw .readOnly }
    try check(offset, segments.byteCount)
    var position = Int(offset)
    for segment in segments {
      contents.withLock { contents in
        for index in 0..<segment.count {
          contents.bytes[position + index] = segment.load(index, as: UInt8.self)
        }
      }
      position += segment.count
    }
  }

  func flush() throws(StorageError) {
    let fails = contents.withLock { contents in
      contents.flushes += 1
      return contents.flushFails
    }
    if fails { throw .host(.inputOutput) }
  }

  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    try check(offset, Int(count))
  }

  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try check(offset, Int(count))
    contents.withLock { $0.discarded.append(offset..<offset + count) }
  }
}
