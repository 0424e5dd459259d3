import Host
import Memory

/// Writing to a qcow2 image.
extension Qcow2Disk {
  /// The most clusters that one step takes new: it holds them back from others until they are filled.
  private var stepClusters: UInt64 { max(1, (2 << 20) >> clusterBits) }

  /// Puts the bytes of `segments` on the disk from `offset` on.
  package func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let count = segments.byteCount
    try checkWrite(offset, UInt64(count))
    var done = 0
    while done < count {
      let place = offset + UInt64(done)
      let rest =
        done == 0 ? segments : segments.slice(done, count: count - done)
      if let written = try overwrite(rest, count - done, at: place) {
        done += written
      } else if let written = try writeNew(rest, count - done, at: place) {
        done += written
        try limitPendingFree()
      }
    }
  }

  /// Writes what has clusters of its own already, where they are; nil if the first has none.
  private func overwrite(
    _ segments: [MemoryView], _ count: Int, at offset: UInt64
  ) throws(StorageError) -> Int? {
    let range = clusters(offset, UInt64(count))
    let (extent, ticket) = try enter(range, exclusive: false) {
      tables, ticket throws(StorageError) in
      try tables.prepareWriting()
      let extent = try tables.extent(range.lowerBound, limit: UInt64(range.count))
      if case .data(let host, true) = extent.entry {
        try tables.checkIsForData(host, clusters: extent.clusters)
      }
      return (extent, ticket)
    }
    defer { leave(ticket) }
    guard case .data(let host, true) = extent.entry else { return nil }
    let inCluster = offset & (clusterSize - 1)
    let length = Int(min(UInt64(count), extent.clusters << clusterBits - inCluster))
    let part = length == count ? segments : segments.slice(0, count: length)
    try file.write(from: part, at: host + inCluster)
    return length
  }

  private struct NewClusters {
    var ticket: UInt64
    var disk: ClosedRange<UInt64>
    var host: UInt64
    var areZeros: Bool
    // What the first and the last held before.
    var first: Qcow2Entry
    var last: Qcow2Entry
  }

  /// Writes to clusters that are taken now; nil if the first has got one meanwhile.
  private func writeNew(
    _ segments: [MemoryView], _ count: Int, at offset: UInt64
  ) throws(StorageError) -> Int? {
    let whole = clusters(offset, UInt64(count))
    let range = whole.lowerBound...min(whole.upperBound, whole.lowerBound + stepClusters - 1)
    guard let new = try takeClusters(range) else { return nil }
    let end = (new.disk.upperBound + 1) << clusterBits
    let length = Int(min(UInt64(count), end - offset))
    do throws(StorageError) {
      try fill(new, segments, length, at: offset)
      try tables.locked { tables throws(StorageError) in
        for (number, cluster) in new.disk.enumerated() {
          let host = new.host + UInt64(number) << clusterBits
          do throws(StorageError) { try tables.set(cluster, host | Qcow2Entry.copied) } catch {
            throw tables.note(error)
          }
        }
      }
    } catch {
      tables.locked { tables in
        // What has got an entry after all stays.
        for (number, cluster) in new.disk.enumerated() {
          let host = new.host + UInt64(number) << clusterBits
          if case .data(host, _) = (try? tables.entry(of: cluster)) ?? .unallocated { continue }
          try? tables.release(host >> clusterBits)
        }
      }
      leave(new.ticket)
      throw error
    }
    leave(new.ticket)
    return length
  }

  /// Takes clusters of the file for as many of `range` from its start on as have none and as there
  /// are one behind the other; nil if the first has one.
  private func takeClusters(_ range: ClosedRange<UInt64>) throws(StorageError) -> NewClusters? {
    try enter(range, exclusive: true) { tables, ticket throws(StorageError) -> NewClusters? in
      try tables.makeL2Table(for: range.lowerBound)
      let l2Mask = (UInt64(1) << (clusterBits - 3)) - 1
      var wanted: UInt64 = 0
      let first = try tables.entry(of: range.lowerBound)
      for cluster in range {
        // A table more is for the next step.
        if wanted > 0 && cluster & l2Mask == 0 { break }
        if case .data(_, true) = try tables.entry(of: cluster) { break }
        wanted += 1
      }
      guard wanted > 0 else {
        tables.ranges.leave(ticket)
        return nil
      }
      let (host, count, areZeros) = try tables.allocate(wanted)
      let last = try tables.entry(of: range.lowerBound + count - 1)
      return NewClusters(
        ticket: ticket, disk: range.lowerBound...range.lowerBound + count - 1,
        host: host << clusterBits, areZeros: areZeros, first: first, last: last)
    }
  }

  /// Writes new clusters: `length` bytes of `segments`, and around them what was there before.
  private func fill(
    _ new: NewClusters, _ segments: [MemoryView], _ length: Int, at offset: UInt64
  ) throws(StorageError) {
    let start = new.disk.lowerBound << clusterBits
    let end = (new.disk.upperBound + 1) << clusterBits
    var parts = length == segments.byteCount ? segments : segments.slice(0, count: length)
    var place = new.host + (offset - start)
    if offset > start,
      let head = try surroundings(new, new.first, at: start, count: offset - start)
    {
      parts.insert(head, at: 0)
      place = new.host
    }
    let behind = offset + UInt64(length)
    if behind < end,
      let tail = try surroundings(new, new.last, at: behind, count: end - behind)
    {
      parts.append(tail)
    }
    try file.write(from: parts, at: place)
  }

  /// What was on the disk at `offset` before the write; nil if that is zeros and the new cluster has
  /// them already.
  private func surroundings(
    _ new: NewClusters, _ entry: Qcow2Entry, at offset: UInt64, count: UInt64
  ) throws(StorageError) -> MemoryView? {
    let isZero =
      switch entry {
      case .unallocated: offset >= (base?.size ?? 0)
      case .zero: true
      default: false
      }
    if isZero && new.areZeros { return nil }
    let view: MemoryView
    do throws(Errno) { view = try MemoryView(scratch: Int(count)) } catch { throw .host(error) }
    if !isZero {
      try read(
        entry, into: [view], Int(count), inCluster: offset & (clusterSize - 1), at: offset)
    }
    return view
  }

  // MARK: Zeros

  /// Makes a range read as zeros: whole clusters by a mark in the tables, the rest by writing.
  package func writeZeroes(
    at offset: UInt64, count: UInt64, mayUnmap: Bool
  ) throws(StorageError) {
    try checkWrite(offset, count)
    try clear(offset, count, mayUnmap: mayUnmap, wholeClustersOnly: false)
  }

  /// Lets whole clusters go; they read as zeros from then on.
  package func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try checkWrite(offset, count)
    // Version 2 has no mark for zeros: without a cluster the base would show through.
    guard version >= 3 || base == nil else { return }
    try clear(offset, count, mayUnmap: true, wholeClustersOnly: true)
  }

  private func clear(
    _ offset: UInt64, _ count: UInt64, mayUnmap: Bool, wholeClustersOnly: Bool
  ) throws(StorageError) {
    var position = offset
    let end = offset + count
    while position < end {
      let inCluster = position & (clusterSize - 1)
      let clusterEnd = min(position - inCluster + clusterSize, size)
      // The disk's last cluster is whole when it's covered up to the disk's end.
      let isWhole = inCluster == 0 && end >= clusterEnd
      if isWhole && (version >= 3 || (base == nil && mayUnmap)) {
        let last = end == size ? (end - 1) >> clusterBits : (end >> clusterBits) - 1
        position = try clearClusters(position >> clusterBits...last, mayUnmap: mayUnmap)
        position = min(position, size)
      } else {
        let next = min(clusterEnd, end)
        if !wholeClustersOnly { try writeZeroBytes(at: position, count: next - position) }
        position = next
      }
    }
  }

  /// Clears whole clusters, those of one L2 table at most, and returns where it stopped.
  private func clearClusters(
    _ range: ClosedRange<UInt64>, mayUnmap: Bool
  ) throws(StorageError) -> UInt64 {
    let tableEnd = range.lowerBound | ((1 << (clusterBits - 3)) - 1)
    let part = range.lowerBound...min(range.upperBound, tableEnd)
    let ticket = try enter(part, exclusive: true) { tables, ticket throws(StorageError) in
      try tables.prepareWriting()
      // Without a base, what has no table is zeros already.
      let hasTable = try tables.place(of: part.lowerBound) != nil
      if !hasTable && base == nil { return ticket }
      try tables.makeL2Table(for: part.lowerBound)
      for cluster in part {
        let old = try tables.entry(of: cluster)
        if let word = cleared(old, mayUnmap: mayUnmap) {
          try tables.set(cluster, word, givesSpaceBack: true)
        }
      }
      return ticket
    }
    leave(ticket)
    try limitPendingFree()
    return (part.upperBound + 1) << clusterBits
  }

  /// The entry that makes a cluster zeros; nil if it may stay as it is.
  private func cleared(_ old: Qcow2Entry, mayUnmap: Bool) -> UInt64? {
    let none = base == nil ? 0 : Qcow2Entry.isZero
    switch old {
    case .unallocated: return base == nil ? nil : none
    case .zero(host: nil): return nil
    case .zero: return mayUnmap ? none : nil
    case .data(let host, true) where !mayUnmap && version >= 3:
      return host | Qcow2Entry.copied | Qcow2Entry.isZero
    case .data, .compressed: return none
    }
  }

  private func writeZeroBytes(at offset: UInt64, count: UInt64) throws(StorageError) {
    let cluster = offset >> clusterBits
    let entry = try tables.locked { tables throws(StorageError) in try tables.entry(of: cluster) }
    switch entry {
    case .zero: return
    case .unallocated where offset >= (base?.size ?? 0): return
    default: break
    }
    let zeros: MemoryView
    do throws(Errno) { zeros = try MemoryView(scratch: Int(count)) } catch { throw .host(error) }
    try write(from: [zeros], at: offset)
  }
}
