import Host

/// Looks for what is wrong with a qcow2 image: counts the references to each cluster of the file and
/// holds them against the refcounts.
struct Qcow2Check {
  private(set) var report = DiskCheck()
  private var tables: Qcow2Tables
  private var counts = ReferenceCounts()
  private let fileClusters: UInt64
  // Whether the refcount structure itself can't be used any longer, and must be made anew.
  private var needsNewRefcounts = false
  private let ignoresLeaks: Bool

  private var header: Qcow2Header { tables.header }
  private var bits: UInt64 { tables.clusterBits }

  init(_ file: any DiskFile, _ header: Qcow2Header) throws(StorageError) {
    tables = try Qcow2Tables(file, header)
    // Beyond the disk's end, too: a machine's state that QEMU keeps there has clusters as well.
    tables.l1 = TableCache.decode(
      try file.bytes(at: header.l1Offset, count: header.l1Count * 8), 64)
    fileClusters = (tables.fileEnd + tables.clusterSize - 1) >> tables.clusterBits
    report.isMarkedDirty = header.incompatible & Qcow2Header.Incompatible.dirty != 0
    report.isMarkedCorrupt = header.incompatible & Qcow2Header.Incompatible.corrupt != 0
    // Dirty bitmaps have clusters that only QEMU knows.
    ignoresLeaks =
      header.autoclear & 1 != 0
      && header.extensions.contains { $0.type == Qcow2Header.Extension.bitmaps }
    report.hasBitmaps = ignoresLeaks
  }

  // MARK: Counting

  /// Counts all references, and compares.
  mutating func run() throws(StorageError) {
    count(0, 1, "the header")
    count(header.l1Offset >> bits, clusters(UInt64(header.l1Count) * 8), "the L1 table")
    count(
      header.refcountTableOffset >> bits, UInt64(header.refcountTableClusters),
      "the refcount table")
    countRefcountBlocks()
    for index in tables.l1.indices { try countL2Table(index) }
    try compare()
    try compareFlags()
  }

  private func clusters(_ bytes: UInt64) -> UInt64 { (bytes + (1 << bits) - 1) >> bits }

  /// Counts a reference; false if that is nowhere in the file.
  @discardableResult
  private mutating func count(_ first: UInt64, _ count: UInt64, _ what: String) -> Bool {
    guard first + count <= fileClusters else {
      report.complain("\(what) is beyond the file's end, at \(first << bits)")
      return false
    }
    for cluster in first..<first + count { counts.add(cluster) }
    if count > 0 { report.imageEnd = max(report.imageEnd, (first + count) << bits) }
    return true
  }

  private mutating func countRefcountBlocks() {
    for (index, entry) in tables.refcountTable.enumerated() {
      let offset = entry & Qcow2Entry.offsetMask
      guard offset != 0 else { continue }
      let isSound =
        offset % tables.clusterSize == 0 && counts[offset >> bits] == 0
        && count(offset >> bits, 1, "refcount block \(index)")
      if !isSound {
        report.complain("refcount block \(index) can't be at \(offset)")
        needsNewRefcounts = true
        tables.refcountTable[index] = 0
      }
    }
  }

  private mutating func countL2Table(_ index: Int) throws(StorageError) {
    let offset = tables.l1[index] & Qcow2Entry.offsetMask
    guard offset != 0 else { return }
    // A table that was seen before isn't walked again: no image can make this take longer than its
    // file is.
    guard offset % tables.clusterSize == 0, counts[offset >> bits] == 0,
      offset + tables.clusterSize <= fileClusters << bits,
      count(offset >> bits, 1, "L2 table \(index)")
    else {
      report.complain("L2 table \(index) can't be at \(offset)")
      report.lost += 1
      tables.l1[index] = 0
      return
    }
    let l2Count = UInt64(1) << UInt64(header.l2Bits)
    let first = UInt64(index) * l2Count
    for cluster in first..<first + l2Count { try countEntry(cluster) }
  }

  private mutating func countEntry(_ cluster: UInt64) throws(StorageError) {
    let entry: Qcow2Entry
    do throws(StorageError) { entry = try tables.entry(of: cluster) } catch {
      guard case .corrupt(let what) = error else { throw error }
      report.complain("cluster \(cluster) of the disk: \(what)")
      report.lost += 1
      return
    }
    switch entry {
    case .unallocated: return
    case .zero: report.zeroClusters += 1
    case .data: report.dataClusters += 1
    case .compressed: report.compressedClusters += 1
    }
    guard let range = entry.hostClusters(header) else { return }
    // A compressed cluster's length is rounded up to sectors, beyond the file's end too.
    let last =
      if case .compressed = entry { min(range.upperBound, max(fileClusters, 1) - 1) } else {
        range.upperBound
      }
    guard range.lowerBound <= last,
      count(range.lowerBound, last - range.lowerBound + 1, "cluster \(cluster) of the disk")
    else {
      report.lost += 1
      return
    }
  }

  // MARK: Comparing

  private mutating func compare() throws(StorageError) {
    var cluster: UInt64 = 0
    let perBlock = UInt64(1) << UInt64(header.refcountBlockBits)
    // Blocks count what is beyond the file's end too: given out, and never written.
    let all = max(fileClusters, UInt64(tables.refcountTable.count) * perBlock)
    while cluster < all {
      let block = Int(cluster / perBlock)
      let hasBlock = block < tables.refcountTable.count && tables.refcountTable[block] != 0
      let end = (UInt64(block) + 1) * perBlock
      if !hasBlock && !counts.hasAny(in: cluster..<end) {
        cluster = end
        continue
      }
      for cluster in cluster..<end { try compare(cluster) }
      cluster = end
    }
  }

  private mutating func compare(_ cluster: UInt64) throws(StorageError) {
    let stored = try tables.refcount(cluster)
    let counted = counts[cluster]
    if stored < counted {
      report.complain(
        "cluster \(cluster) of the file has refcount \(stored) and \(counted) references")
      report.wrongRefcounts += 1
    } else if stored > counted && !ignoresLeaks {
      report.leakedClusters += 1
    }
  }

  /// The flag of an entry that says whether it is the only one must agree with the count.
  private mutating func compareFlags() throws(StorageError) {
    for index in tables.l1.indices where tables.l1[index] & Qcow2Entry.offsetMask != 0 {
      let host = (tables.l1[index] & Qcow2Entry.offsetMask) >> bits
      if (counts[host] == 1) != (tables.l1[index] & Qcow2Entry.copied != 0) {
        report.complain("L2 table \(index): its flag and its count contradict each other")
        report.wrongFlags += 1
      }
      try forEachEntry(of: index) { check, cluster, slot, place throws(StorageError) in
        let word = check.tables.l2.entry(slot, place)
        guard let wanted = check.wantedFlag(word), wanted != word else { return }
        check.report.complain(
          "cluster \(cluster) of the disk: its flag and its count contradict each other")
        check.report.wrongFlags += 1
      }
    }
  }

  private mutating func forEachEntry(
    of index: Int,
    _ body: (inout Qcow2Check, UInt64, Int, Int) throws(StorageError) -> Void
  ) throws(StorageError) {
    let l2Count = UInt64(1) << UInt64(header.l2Bits)
    for cluster in UInt64(index) * l2Count..<(UInt64(index) + 1) * l2Count {
      guard let (slot, place) = try tables.place(of: cluster) else { return }
      try body(&self, cluster, slot, place)
    }
  }

  /// An entry with its flag as the count wants it; nil for one without a cluster of its own.
  private func wantedFlag(_ word: UInt64) -> UInt64? {
    guard let entry = try? Qcow2Entry(word, header) else { return nil }
    switch entry {
    case .data(let host, _), .zero(host: let host?):
      guard host >> bits < fileClusters else { return nil }
      let flag = counts[host >> bits] == 1 ? Qcow2Entry.copied : 0
      return word & ~Qcow2Entry.copied | flag
    default: return nil
    }
  }

  // MARK: Repairing

  /// Mends what can be mended without losing anything: refcounts and flags. What points nowhere stays
  /// as it is.
  mutating func repair() throws(StorageError) {
    try checkMaximum()
    let hasBlocks = needsNewRefcounts ? false : try hasAllBlocks()
    if hasBlocks {
      // First up, so that nothing is ever counted too low.
      try correctRefcounts { $0 < $1 }
      try tables.writeBack()
      try tables.file.flush()
    } else {
      try writeNewRefcounts()
    }
    for index in tables.l1.indices where tables.l1[index] & Qcow2Entry.offsetMask != 0 {
      let host = (tables.l1[index] & Qcow2Entry.offsetMask) >> bits
      let flag = counts[host] == 1 ? Qcow2Entry.copied : 0
      let word = tables.l1[index] & ~Qcow2Entry.copied | flag
      if word != tables.l1[index] {
        tables.l1[index] = word
        tables.dirtyL1.insert(index)
      }
      try forEachEntry(of: index) { check, cluster, slot, place throws(StorageError) in
        let word = check.tables.l2.entry(slot, place)
        if let wanted = check.wantedFlag(word), wanted != word {
          check.tables.l2.set(slot, place, wanted)
        }
      }
    }
    try tables.writeBack()
    try tables.file.flush()
    if hasBlocks { try correctRefcounts { $0 > $1 } }
    try tables.writeBack()
    try tables.file.flush()
    report.isRepaired = true
    if report.lost == 0 { try clearMarks() }
  }

  private func checkMaximum() throws(StorageError) {
    let maximum: UInt64 =
      header.refcountOrder == 6 ? .max : (1 << (1 << UInt64(header.refcountOrder))) - 1
    for chunk in counts.chunks {
      for cluster in chunk where counts[cluster] > maximum {
        throw .unsupported("a cluster with more references than a refcount here can count")
      }
    }
  }

  private mutating func hasAllBlocks() throws(StorageError) -> Bool {
    let perBlock = UInt64(1) << UInt64(header.refcountBlockBits)
    for chunk in counts.chunks {
      for cluster in chunk where counts[cluster] > 0 {
        let block = cluster / perBlock
        guard block < UInt64(tables.refcountTable.count), tables.refcountTable[Int(block)] != 0
        else { return false }
      }
    }
    return true
  }

  private mutating func correctRefcounts(
    _ isWrong: (UInt64, UInt64) -> Bool
  ) throws(StorageError) {
    let perBlock = UInt64(1) << UInt64(header.refcountBlockBits)
    for (index, entry) in tables.refcountTable.enumerated() where entry != 0 {
      let start = UInt64(index) * perBlock
      for cluster in start..<start + perBlock {
        if isWrong(try tables.refcount(cluster), counts[cluster]) {
          try tables.setRefcount(cluster, counts[cluster])
        }
      }
    }
  }

  /// Writes all refcounts anew behind everything else, and then the header that points to them.
  private mutating func writeNewRefcounts() throws(StorageError) {
    // The old ones are nobody's any longer.
    for cluster in 0..<UInt64(header.refcountTableClusters) {
      counts.remove((header.refcountTableOffset >> bits) + cluster)
    }
    for entry in tables.refcountTable where entry & Qcow2Entry.offsetMask != 0 {
      counts.remove((entry & Qcow2Entry.offsetMask) >> bits)
    }
    let perBlock = UInt64(1) << UInt64(header.refcountBlockBits)
    let perTable = tables.clusterSize / 8
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 1
    while true {
      let end = fileClusters + blocks + tableClusters
      if end <= blocks * perBlock && blocks <= tableClusters * perTable { break }
      blocks = max(blocks, (end + perBlock - 1) / perBlock)
      tableClusters = max(tableClusters, (blocks + perTable - 1) / perTable)
    }
    guard tableClusters << bits <= UInt64(Qcow2Header.largestRefcountTable) else {
      throw .unsupported("so large a file: its refcounts can't be made anew")
    }
    for cluster in fileClusters..<fileClusters + blocks + tableClusters { counts.add(cluster) }
    var table = [UInt64](repeating: 0, count: Int(tableClusters * perTable))
    for block in 0..<blocks {
      let values = (block * perBlock..<(block + 1) * perBlock).map { counts[$0] }
      table[Int(block)] = (fileClusters + block) << bits
      try tables.file.write(
        TableCache.encode(values, 1 << header.refcountOrder).span, at: table[Int(block)])
    }
    let offset = (fileClusters + blocks) << bits
    try tables.file.write(TableCache.encode(table, 64).span, at: offset)
    try tables.file.flush()
    try tables.file.write(
      (offset.bigEndianBytes + UInt32(tableClusters).bigEndianBytes).span, at: 48)
    try tables.file.flush()
  }

  private mutating func clearMarks() throws(StorageError) {
    guard header.version >= 3 else { return }
    let marks = Qcow2Header.Incompatible.dirty | Qcow2Header.Incompatible.corrupt
    guard header.incompatible & marks != 0 else { return }
    try tables.file.write((header.incompatible & ~marks).bigEndianBytes.span, at: 72)
    try tables.file.flush()
  }
}

/// How often each cluster of a file is referred to: memory only for where there are any.
struct ReferenceCounts {
  private static let chunkBits: UInt64 = 12
  private var pieces: [UInt64: [UInt32]] = [:]

  subscript(cluster: UInt64) -> UInt64 {
    guard let piece = pieces[cluster >> Self.chunkBits] else { return 0 }
    return UInt64(piece[Int(cluster & ((1 << Self.chunkBits) - 1))])
  }

  mutating func add(_ cluster: UInt64) {
    let index = Int(cluster & ((1 << Self.chunkBits) - 1))
    pieces[
      cluster >> Self.chunkBits, default: [UInt32](repeating: 0, count: 1 << Int(Self.chunkBits))
    ][index] &+= 1
  }

  mutating func remove(_ cluster: UInt64) {
    let index = Int(cluster & ((1 << Self.chunkBits) - 1))
    if let count = pieces[cluster >> Self.chunkBits]?[index], count > 0 {
      pieces[cluster >> Self.chunkBits]?[index] = count - 1
    }
  }

  /// The clusters that have memory here.
  var chunks: [Range<UInt64>] {
    pieces.keys.sorted().map { $0 << Self.chunkBits..<($0 + 1) << Self.chunkBits }
  }

  func hasAny(in range: Range<UInt64>) -> Bool {
    guard !range.isEmpty else { return false }
    let first = range.lowerBound >> Self.chunkBits
    let last = (range.upperBound - 1) >> Self.chunkBits
    if last - first < UInt64(pieces.count) {
      return (first...last).contains { pieces[$0] != nil }
    }
    return pieces.keys.contains { (first...last).contains($0) }
  }
}
