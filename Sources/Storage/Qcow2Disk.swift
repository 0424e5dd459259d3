import Host
import Memory
import Synchronization

/// A disk in a qcow2 image of version 2 or 3, with the base under it.
///
/// The lock on the tables is not held while data is read or written; a `RangeLock` keeps clusters in
/// their place meanwhile. Reading and writing are in files of their own.
package final class Qcow2Disk: BlockStore {
  /// How many bytes the disk has.
  package let size: UInt64
  /// Whether writes are refused.
  package let isReadOnly: Bool
  let file: any DiskFile
  let base: (any BlockStore)?
  let tables: Guarded<Qcow2Tables>
  let clusterBits: UInt64
  let version: UInt32
  private let compression: Qcow2Header.Compression
  // The cluster that was decompressed last: a reader of small pieces comes back to it.
  private let lastCluster = Mutex<(host: UInt64, bytes: [UInt8])>((0, []))

  /// Reads the tables of an image whose header was read; `base` is what its backing file holds.
  init(
    _ file: any DiskFile, _ header: Qcow2Header, base: (any BlockStore)?, isReadOnly: Bool
  ) throws(StorageError) {
    if !isReadOnly {
      if header.incompatible & Qcow2Header.Incompatible.corrupt != 0 {
        throw .corrupt("it is marked so; what mends it: \(.repair)")
      }
      if header.incompatible & Qcow2Header.Incompatible.dirty != 0 {
        throw .corrupt("its refcounts were left dirty; what mends it: \(.repair)")
      }
    }
    self.file = file
    self.base = base
    self.isReadOnly = isReadOnly
    size = (header.size + 511) & ~511
    clusterBits = UInt64(header.clusterBits)
    version = header.version
    compression = header.compression
    tables = Guarded(try Qcow2Tables(file, header))
  }

  deinit {
    // Nobody is left to hear of an error; whoever wanted to know has flushed.
    guard !isReadOnly else { return }
    try? flush()
    // What that freed is noted by another.
    if tables.locked({ $0.isDirty }) { try? flush() }
  }

  var clusterSize: UInt64 { 1 << clusterBits }

  /// The clusters that hold `count` bytes from `offset` on; `count` isn't 0.
  func clusters(_ offset: UInt64, _ count: UInt64) -> ClosedRange<UInt64> {
    offset >> clusterBits...(offset + count - 1) >> clusterBits
  }

  /// Lets go what `RangeLock` gave `ticket` for.
  func leave(_ ticket: UInt64) {
    let mustWake = tables.locked { tables in
      tables.ranges.leave(ticket)
      return tables.ranges.waiting > 0
    }
    if mustWake { tables.wakeAll() }
  }

  /// Runs `body` on the tables once nobody is in the way of work on `range`.
  func enter<Result>(
    _ range: ClosedRange<UInt64>, exclusive: Bool,
    _ body: (inout Qcow2Tables, UInt64) throws(StorageError) -> Result
  ) throws(StorageError) -> Result {
    var hasWaited = false
    return try tables.waiting { tables throws(StorageError) -> Result? in
      guard let ticket = tables.ranges.enter(range, exclusive: exclusive) else {
        if !hasWaited { tables.ranges.waiting += 1 }
        hasWaited = true
        return nil
      }
      if hasWaited { tables.ranges.waiting -= 1 }
      do throws(StorageError) { return try body(&tables, ticket) } catch {
        tables.ranges.leave(ticket)
        throw isReadOnly ? error : tables.note(error)
      }
    }
  }

  // MARK: Reading

  /// Fills `segments` with the disk's bytes from `offset` on.
  package func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let count = segments.byteCount
    try checkRange(offset, UInt64(count))
    var done = 0
    while done < count {
      done += try readSome(segments, done, at: offset + UInt64(done), count: count - done)
    }
  }

  /// Reads what is in one place of the file, and returns how much that was.
  private func readSome(
    _ segments: [MemoryView], _ position: Int, at offset: UInt64, count: Int
  ) throws(StorageError) -> Int {
    let range = clusters(offset, UInt64(count))
    let (extent, ticket) = try enter(range, exclusive: false) {
      tables, ticket throws(StorageError) in
      (try tables.extent(range.lowerBound, limit: UInt64(range.count)), ticket)
    }
    defer { leave(ticket) }
    let inCluster = offset & (clusterSize - 1)
    let length = Int(min(UInt64(count), extent.clusters << clusterBits - inCluster))
    // Most requests are in one place: they need no new list.
    let part =
      position == 0 && length == count
      ? segments : segments.slice(position, count: length)
    try read(extent.entry, into: part, length, inCluster: inCluster, at: offset)
    return length
  }

  /// Reads `length` bytes of a stretch, from `inCluster` of its first cluster on.
  func read(
    _ entry: Qcow2Entry, into segments: [MemoryView], _ length: Int, inCluster: UInt64,
    at offset: UInt64
  ) throws(StorageError) {
    switch entry {
    case .unallocated: try readBase(into: segments, length, at: offset)
    case .zero: segments.zero(0, count: length)
    case .data(let host, _):
      let came = try file.read(into: segments, at: host + inCluster)
      guard came < length else { return }
      // The last cluster of a file may be there only in part; beyond that something is wrong.
      let lastCluster = (host + inCluster + UInt64(length) - 1) & ~(clusterSize - 1)
      guard lastCluster < (try file.length()) else { throw .truncated }
      segments.zero(came, count: length - came)
    case .compressed(let host, let count):
      let bytes = try decompress(host, count)
      let start = Int(inCluster)
      segments.copy(from: bytes.span.extracting(start..<start + length), at: 0)
    }
  }

  private func readBase(
    into segments: [MemoryView], _ length: Int, at offset: UInt64
  ) throws(StorageError) {
    let there = Int(min(UInt64(length), (base?.size ?? 0) - min(offset, base?.size ?? 0)))
    if there == length, let base {
      try base.read(into: segments, at: offset)
    } else {
      if there > 0, let base {
        try base.read(into: segments.slice(0, count: there), at: offset)
      }
      segments.zero(there, count: length - there)
    }
  }

  private func decompress(_ host: UInt64, _ count: Int) throws(StorageError) -> [UInt8] {
    let known = lastCluster.withLock { $0.host == host ? $0.bytes : [] }
    if !known.isEmpty { return known }
    if let lack = Decompression.lack { throw .unsupported("compressed clusters: \(lack)") }
    var packed = [UInt8](repeating: 0, count: count)
    var span = packed.mutableSpan
    // The last sector needn't be whole.
    let came = try file.read(into: &span, at: host)
    let source = packed.span.extracting(0..<came)
    let size = Int(clusterSize)
    let bytes =
      compression == .zlib
      ? Decompression.inflate(source, count: size) : Decompression.zstandard(source, count: size)
    guard let bytes else { throw .corrupt("the compressed cluster at \(host) can't be read") }
    lastCluster.withLock { $0 = (host, bytes) }
    return bytes
  }

  // MARK: Flushing

  /// Returns when everything that was written is on stable storage, the tables included.
  package func flush() throws(StorageError) {
    if isReadOnly { return }
    let freed = try tables.locked { tables throws(StorageError) in
      if let damage = tables.damage { throw damage }
      try tables.writeBack()
      let freed = tables.pendingFree
      tables.pendingFree = []
      return freed
    }
    try file.flush()
    guard !freed.isEmpty else { return }
    // Now nothing on the disk refers to these any longer. If one can't be freed it is lost space.
    for item in freed {
      let isFree = tables.locked { tables in
        do throws(StorageError) {
          try tables.release(item.cluster)
          return try tables.refcount(item.cluster) == 0
        } catch {
          _ = tables.note(error)
          return false
        }
      }
      if isFree && item.givesSpaceBack { giveBack(item.cluster) }
    }
  }

  /// Frees what was let go once that is much: a guest that never flushes would use up the host's
  /// memory and disk.
  func limitPendingFree() throws(StorageError) {
    let most = Int((256 << 20) >> clusterBits)
    if tables.locked({ $0.pendingFree.count >= most }) { try flush() }
  }

  private func giveBack(_ cluster: UInt64) {
    // Under the lock: somebody may be given the cluster right now.
    tables.locked { tables in
      if (try? tables.refcount(cluster)) == 0, (cluster + 1) << clusterBits <= tables.fileEnd {
        try? file.zero(at: cluster << clusterBits, count: clusterSize, mayUnmap: true)
      }
    }
  }
}
