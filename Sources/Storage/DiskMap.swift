import Host

/// A stretch of a disk that is in one place.
package struct DiskExtent: Equatable, Sendable {
  /// What is there.
  package enum Kind: String, Sendable {
    /// Data.
    case data
    /// Data that is compressed.
    case compressed
    /// Zeros by a mark in the image.
    case zero
    /// Zeros because no image has anything.
    case hole
  }

  /// Where on the disk it begins, in bytes.
  package var start: UInt64
  /// How many bytes it has.
  package var count: UInt64
  /// Which image has it: 0 for the one on top, 1 for its base, and so on. The last one for a hole.
  package var depth: Int
  /// What is there.
  package var kind: Kind
  /// Where in that image's file it begins; nil for zeros.
  package var offset: UInt64?
}

/// Where the contents of a disk are.
package enum DiskMap {
  /// Calls `body` for the stretches of a disk one after the other.
  package static func forEach<Failure: Error>(
    of store: any BlockStore, _ body: (DiskExtent) throws(Failure) -> Void
  ) throws(Failure) -> StorageError? {
    var pending: DiskExtent?
    var position: UInt64 = 0
    while position < store.size {
      let next: DiskExtent
      do throws(StorageError) {
        next = try extent(of: store, at: position, limit: store.size - position, depth: 0)
      } catch { return error }
      position += next.count
      if let last = pending {
        if let joined = join(last, next) {
          pending = joined
          continue
        }
        try body(last)
      }
      pending = next
    }
    if let pending { try body(pending) }
    return nil
  }

  private static func join(_ first: DiskExtent, _ second: DiskExtent) -> DiskExtent? {
    guard first.depth == second.depth, first.kind == second.kind, first.kind != .compressed,
      first.offset.map({ $0 + first.count }) == second.offset
    else { return nil }
    var joined = first
    joined.count += second.count
    return joined
  }

  /// What is at `start` of a disk, and for how long.
  static func extent(
    of store: any BlockStore, at start: UInt64, limit: UInt64, depth: Int
  ) throws(StorageError) -> DiskExtent {
    var result = DiskExtent(start: start, count: limit, depth: depth, kind: .data, offset: start)
    if let raw = store as? RawDisk {
      let length = min(try raw.file.length(), raw.size)
      guard start < length else {
        result.kind = .hole
        result.offset = nil
        return result
      }
      switch raw.file.extent(at: start, length: length) {
      case .data(let end): result.count = min(limit, (end == length ? raw.size : end) - start)
      case .hole(let end):
        result.count = min(limit, (end == length ? raw.size : end) - start)
        result.kind = .hole
        result.offset = nil
      }
      return result
    }
    guard let disk = store as? Qcow2Disk else { return result }
    let inCluster = start & (disk.clusterSize - 1)
    let range = disk.clusters(start, limit)
    let extent = try disk.tables.locked { tables throws(StorageError) in
      try tables.extent(range.lowerBound, limit: UInt64(range.count))
    }
    result.count = min(limit, extent.clusters << disk.clusterBits - inCluster)
    switch extent.entry {
    case .data(let host, _): result.offset = host + inCluster
    case .compressed(let host, _):
      result.kind = .compressed
      result.offset = host
    case .zero:
      result.kind = .zero
      result.offset = nil
    case .unallocated:
      result.kind = .hole
      result.offset = nil
      if let base = disk.base, start < base.size {
        return try DiskMap.extent(
          of: base, at: start, limit: min(result.count, base.size - start), depth: depth + 1)
      }
    }
    return result
  }
}
