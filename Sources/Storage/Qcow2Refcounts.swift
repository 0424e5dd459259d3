/// Refcounts of a qcow2 image: which clusters of the file are in use. ("Host cluster management")
extension Qcow2Tables {
  private static let mostSlicesBeyondEnd = 1 << 16
  private var blockBits: UInt64 { UInt64(header.refcountBlockBits) }

  /// Where the refcount block for a cluster of the file is; nil if there is none.
  private func refcountBlock(for cluster: UInt64) throws(StorageError) -> UInt64? {
    let index = cluster >> blockBits
    guard index < UInt64(refcountTable.count) else { return nil }
    let offset = refcountTable[Int(index)] & Qcow2Entry.offsetMask
    guard offset != 0 else { return nil }
    guard offset % clusterSize == 0 else { throw .corrupt("a refcount block at \(offset)") }
    return offset
  }

  private mutating func refcountPlace(
    _ cluster: UInt64
  ) throws(StorageError) -> (slot: Int, index: Int)? {
    guard let block = try refcountBlock(for: cluster) else { return nil }
    let index = Int(cluster & ((1 << blockBits) - 1))
    let slice = block + UInt64(index / refcounts.sliceCount * refcounts.sliceBytes)
    if let slot = try refcounts.slot(at: slice, in: file) {
      return (slot, index % refcounts.sliceCount)
    }
    try refcounts.writeBack(to: file)
    guard let slot = try refcounts.slot(at: slice, in: file) else { throw .host(.noMemory) }
    return (slot, index % refcounts.sliceCount)
  }

  /// How many references a cluster of the file has, as the image says.
  mutating func refcount(_ cluster: UInt64) throws(StorageError) -> UInt64 {
    guard let (slot, index) = try refcountPlace(cluster) else { return 0 }
    return refcounts.entry(slot, index)
  }

  mutating func setRefcount(_ cluster: UInt64, _ value: UInt64) throws(StorageError) {
    guard let (slot, index) = try refcountPlace(cluster) else {
      throw .corrupt("no refcount for cluster \(cluster) of the file")
    }
    refcounts.set(slot, index, value)
  }

  /// Takes one reference away from a cluster of the file.
  mutating func release(_ cluster: UInt64) throws(StorageError) {
    let count = try refcount(cluster)
    guard count > 0 else { throw .corrupt("cluster \(cluster) of the file is freed twice") }
    try setRefcount(cluster, count - 1)
    if count == 1 { firstFree = min(firstFree, cluster) }
  }

  /// Takes up to `wanted` clusters of the file, one behind the other, that nobody uses: the first of
  /// them, how many, and whether they are known to be zeros.
  mutating func allocate(
    _ wanted: UInt64
  ) throws(StorageError) -> (first: UInt64, count: UInt64, areZeros: Bool) {
    let first = try nextFree()
    var count: UInt64 = 0
    // Within one refcount block, so that each has a refcount to set.
    while count < wanted, (first + count) >> blockBits == first >> blockBits,
      try refcount(first + count) == 0
    {
      try checkIsFree(first + count)
      try setRefcount(first + count, 1)
      count += 1
    }
    firstFree = first + count
    let areZeros = file.growsWithZeros && first << clusterBits >= fileEnd
    fileEnd = max(fileEnd, (first + count) << clusterBits)
    return (first, count, areZeros)
  }

  private mutating func checkIsFree(_ cluster: UInt64) throws(StorageError) {
    guard (cluster + 1) << clusterBits <= 1 << 55 else { throw .host(.fileTooLarge) }
    do throws(StorageError) {
      try checkIsForData(cluster << clusterBits, clusters: 1)
    } catch {
      throw .corrupt("its refcounts call a table free; what mends it: \(.repair)")
    }
  }

  /// The first free cluster from `firstFree` on, with a refcount block for it.
  private mutating func nextFree() throws(StorageError) -> UInt64 {
    var cluster = firstFree
    var slicesBeyondEnd = 0
    while true {
      guard let (slot, index) = try refcountPlace(cluster) else {
        // No block: all of its clusters are free. The block takes the first of them itself.
        if try makeRefcountBlock(at: cluster) { cluster += 1 }
        continue
      }
      if let found = refcounts.firstZero(slot, from: index) {
        return cluster + UInt64(found - index)
      }
      // A power cut may keep the refcounts of clusters that were never written: lost space. But no
      // image can make the search as long as it likes.
      if cluster << clusterBits > fileEnd { slicesBeyondEnd += 1 }
      guard slicesBeyondEnd <= Self.mostSlicesBeyondEnd else {
        throw .corrupt("its refcounts call clusters far beyond the file's end used")
      }
      cluster += UInt64(refcounts.sliceCount - index)
    }
  }

  /// Makes the refcount block for `cluster`, in that cluster; false if it made room in the refcount
  /// table instead, after which `cluster` may be taken.
  private mutating func makeRefcountBlock(at cluster: UInt64) throws(StorageError) -> Bool {
    try checkIsFree(cluster)
    let tableIndex = Int(cluster >> blockBits)
    guard tableIndex < refcountTable.count else {
      try growRefcountTable(for: cluster)
      return false
    }
    let offset = cluster << clusterBits
    refcounts.forget(offset, count: clusterSize)
    l2.forget(offset, count: clusterSize)
    var counts = [UInt64](repeating: 0, count: 1 << Int(blockBits))
    counts[Int(cluster & ((1 << blockBits) - 1))] = 1
    try file.write(TableCache.encode(counts, refcounts.entryBits).span, at: offset)
    // The block before what points to it.
    try file.flush()
    try file.write(
      offset.bigEndianBytes.span, at: header.refcountTableOffset + UInt64(tableIndex) * 8)
    refcountTable[tableIndex] = offset
    ownClusters?.insert(cluster)
    fileEnd = max(fileEnd, offset + clusterSize)
    return true
  }

  /// Moves the refcount table to a larger one behind everything else, with the blocks that count it.
  private mutating func growRefcountTable(for cluster: UInt64) throws(StorageError) {
    let start = max(cluster, (fileEnd + clusterSize - 1) >> clusterBits)
    let perCluster = clusterSize / 8
    var tableClusters = UInt64(header.refcountTableClusters) * 3 / 2 + 1
    var blocks: [UInt64] = []
    // The new table and blocks need refcounts too: repeat until all that are needed are counted.
    while true {
      let end = start + tableClusters + UInt64(blocks.count)
      let needed = (start >> blockBits...(end - 1) >> blockBits)
        .filter { $0 >= UInt64(refcountTable.count) || refcountTable[Int($0)] == 0 }
      let entries = ((end - 1) >> blockBits) + 1
      if needed.count == blocks.count && entries <= tableClusters * perCluster { break }
      blocks = needed
      tableClusters = max(tableClusters, (entries + perCluster - 1) / perCluster)
    }
    guard tableClusters << clusterBits <= UInt64(Qcow2Header.largestRefcountTable) else {
      throw .host(.fileTooLarge)
    }
    let firstBlock = start + tableClusters
    let end = firstBlock + UInt64(blocks.count)
    var table = refcountTable
    table += [UInt64](
      repeating: 0, count: Int(tableClusters * perCluster) - refcountTable.count)
    for (number, index) in blocks.enumerated() {
      table[Int(index)] = (firstBlock + UInt64(number)) << clusterBits
    }
    try writeGrown(table, at: start, blocks: blocks, firstBlock: firstBlock, end: end)

    let old = header.refcountTableOffset >> clusterBits
    let oldCount = UInt64(header.refcountTableClusters)
    header.refcountTableOffset = start << clusterBits
    header.refcountTableClusters = Int(tableClusters)
    refcountTable = table
    fileEnd = max(fileEnd, end << clusterBits)
    if ownClusters != nil {
      for cluster in old..<old + oldCount { ownClusters?.remove(cluster) }
      for cluster in start..<end { ownClusters?.insert(cluster) }
    }
    // The header is safe already, so the old table may go at once.
    for cluster in old..<old + oldCount { try release(cluster) }
  }

  private mutating func writeGrown(
    _ table: [UInt64], at start: UInt64, blocks: [UInt64], firstBlock: UInt64, end: UInt64
  ) throws(StorageError) {
    // Clusters whose block is there already are counted in it.
    for cluster in start..<end where try refcountBlock(for: cluster) != nil {
      try setRefcount(cluster, 1)
    }
    for (number, index) in blocks.enumerated() {
      var counts = [UInt64](repeating: 0, count: 1 << Int(blockBits))
      let range = index << blockBits..<(index + 1) << blockBits
      for cluster in range.clamped(to: start..<end) {
        counts[Int(cluster - range.lowerBound)] = 1
      }
      let offset = (firstBlock + UInt64(number)) << clusterBits
      refcounts.forget(offset, count: clusterSize)
      l2.forget(offset, count: clusterSize)
      try file.write(TableCache.encode(counts, refcounts.entryBits).span, at: offset)
    }
    try file.write(TableCache.encode(table, 64).span, at: start << clusterBits)
    try refcounts.writeBack(to: file)
    try file.flush()
    let fields =
      (start << clusterBits).bigEndianBytes
      + UInt32(table.count / Int(clusterSize / 8)).bigEndianBytes
    try file.write(fields.span, at: 48)
    try file.flush()
  }
}
