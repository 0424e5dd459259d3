import Host

/// The tables of an open qcow2 image, as they are in memory: used by one thread at a time.
///
/// Changes stay in memory until `writeBack()`, which orders them so that a table on disk never says
/// more than is true: first refcounts, then, after a flush that takes the data along, what points to
/// the clusters. What is freed keeps its refcount until the tables without it are safe.
struct Qcow2Tables {
  let file: any DiskFile
  var header: Qcow2Header
  var l1: [UInt64]
  /// The entries of `l1` that differ from the file's.
  var dirtyL1: Set<Int> = []
  var refcountTable: [UInt64]
  var l2: TableCache
  var refcounts: TableCache
  /// Clusters of the file that nothing refers to any longer, once the tables are safe.
  var pendingFree: [PendingFree] = []
  /// Below it no cluster is free.
  var firstFree: UInt64 = 1
  /// The file's end, or that of the last cluster that was ever given out beyond it: from here on
  /// clusters are zeros if the file grows with zeros.
  var fileEnd: UInt64
  /// Where the image's own tables are; nothing else may be written there. Made when it's needed.
  var ownClusters: Set<UInt64>?
  var ranges = RangeLock()
  /// Set when the header on disk must change before the first write.
  var mustPrepare: Bool
  /// What was found to be wrong with the tables: from then on nothing is written.
  var damage: StorageError?

  struct PendingFree {
    var cluster: UInt64
    var givesSpaceBack: Bool
  }

  /// How much memory the two caches may take: enough for tables of 64 GiB of disk with clusters of
  /// 64 KiB, without a larger one costing more.
  static let l2Limit = 8 << 20
  static let refcountLimit = 1 << 20

  var clusterBits: UInt64 { UInt64(header.clusterBits) }
  var clusterSize: UInt64 { header.clusterSize }

  /// Reads the L1 table and the refcount table of an image whose header is `header`.
  init(_ file: any DiskFile, _ header: Qcow2Header) throws(StorageError) {
    self.file = file
    self.header = header
    fileEnd = try file.length()
    // Looked at before any memory is taken for them: a short file has no long tables.
    let refcountBytes = UInt64(header.refcountTableClusters) << UInt64(header.clusterBits)
    guard header.l1Offset + UInt64(header.l1Count) * 8 <= fileEnd,
      header.refcountTableOffset + refcountBytes <= fileEnd
    else { throw .truncated }
    l1 = TableCache.decode(
      try file.bytes(at: header.l1Offset, count: Int(header.neededL1Count) * 8), 64)
    refcountTable = TableCache.decode(
      try file.bytes(at: header.refcountTableOffset, count: Int(refcountBytes)), 64)
    let clusterBytes = Int(header.clusterSize)
    l2 = TableCache(entryBits: 64, tableBytes: clusterBytes, byteLimit: Self.l2Limit)
    refcounts = TableCache(
      entryBits: 1 << header.refcountOrder, tableBytes: clusterBytes,
      byteLimit: Self.refcountLimit)
    mustPrepare = header.autoclear != 0
  }

  // MARK: Cluster mapping

  /// Where the L2 table of an L1 entry is; nil if there is none.
  func l2Table(_ l1Index: Int) throws(StorageError) -> UInt64? {
    let offset = l1[l1Index] & Qcow2Entry.offsetMask
    guard offset != 0 else { return nil }
    guard offset % clusterSize == 0 else { throw .corrupt("an L2 table at \(offset)") }
    return offset
  }

  /// The slot of the cache, and the place in it, of the entry for cluster `cluster` of the disk; nil
  /// if it has no L2 table.
  mutating func place(of cluster: UInt64) throws(StorageError) -> (slot: Int, index: Int)? {
    let l2Bits = UInt64(header.l2Bits)
    guard let table = try l2Table(Int(cluster >> l2Bits)) else { return nil }
    let index = Int(cluster & ((1 << l2Bits) - 1))
    let slice = table + UInt64(index / l2.sliceCount * l2.sliceBytes)
    if let slot = try l2.slot(at: slice, in: file) { return (slot, index % l2.sliceCount) }
    try writeBack()
    guard let slot = try l2.slot(at: slice, in: file) else { throw .host(.noMemory) }
    return (slot, index % l2.sliceCount)
  }

  /// The entry of cluster `cluster` of the disk.
  mutating func entry(of cluster: UInt64) throws(StorageError) -> Qcow2Entry {
    guard let (slot, index) = try place(of: cluster) else { return .unallocated }
    return try Qcow2Entry(l2.entry(slot, index), header)
  }

  /// A stretch of the disk that is in one place.
  struct Extent {
    var entry: Qcow2Entry
    /// How many clusters from the first on are alike: of data, one behind the other in the file.
    var clusters: UInt64
  }

  /// What is at cluster `first` of the disk, and for how many clusters that goes on, up to `limit`.
  mutating func extent(_ first: UInt64, limit: UInt64) throws(StorageError) -> Extent {
    let l2Bits = UInt64(header.l2Bits)
    guard let (slot, index) = try place(of: first) else {
      let left = (1 << l2Bits) - first & ((1 << l2Bits) - 1)
      return Extent(entry: .unallocated, clusters: min(limit, left))
    }
    let word = l2.entry(slot, index)
    let entry = try Qcow2Entry(word, header)
    let most = min(limit, UInt64(l2.sliceCount - index))
    var count: UInt64 = 1
    switch entry {
    case .compressed: break
    case .data:
      while count < most, l2.entry(slot, index + Int(count)) == word + count << clusterBits {
        count += 1
      }
    case .unallocated, .zero(host: nil):
      while count < most, l2.entry(slot, index + Int(count)) == word { count += 1 }
    case .zero: break
    }
    return Extent(entry: entry, clusters: count)
  }

  /// Makes the entry of a cluster of the disk `word`, in memory; what it referred to is freed once
  /// that is safe. Its L2 table is there.
  mutating func set(
    _ cluster: UInt64, _ word: UInt64, givesSpaceBack: Bool = false
  ) throws(StorageError) {
    guard let (slot, index) = try place(of: cluster) else { throw .corrupt("no L2 table") }
    let old = try Qcow2Entry(l2.entry(slot, index), header)
    let new = try Qcow2Entry(word, header)
    l2.set(slot, index, word)
    guard let freed = old.hostClusters(header), new.hostClusters(header) != freed else { return }
    for host in freed {
      pendingFree.append(PendingFree(cluster: host, givesSpaceBack: givesSpaceBack))
    }
  }

  /// Sees to it that a cluster of the disk has an L2 table, of its own.
  mutating func makeL2Table(for cluster: UInt64) throws(StorageError) {
    let index = Int(cluster >> UInt64(header.l2Bits))
    if try l2Table(index) != nil {
      guard l1[index] & Qcow2Entry.copied != 0 else {
        throw .corrupt("an L2 table that others use too; what mends it: \(.repair)")
      }
      return
    }
    let number = try allocate(1).first
    let table = number << clusterBits
    // Zeros before anything points there: what is in the file may be an older table.
    do throws(StorageError) { try file.writeZeros(at: table, count: clusterSize) } catch {
      try? release(number)
      throw error
    }
    l2.forget(table, count: clusterSize)
    l1[index] = table | Qcow2Entry.copied
    dirtyL1.insert(index)
    ownClusters?.insert(number)
  }

  // MARK: Writing back

  /// Whether anything in memory differs from the file.
  var isDirty: Bool { l2.dirtyCount > 0 || !dirtyL1.isEmpty || refcounts.dirtyCount > 0 }

  /// Writes all tables that were changed, in the order that a power cut can't harm.
  mutating func writeBack() throws(StorageError) {
    try refcounts.writeBack(to: file)
    guard l2.dirtyCount > 0 || !dirtyL1.isEmpty else { return }
    // The refcounts and the data, before anything points there.
    try file.flush()
    try l2.writeBack(to: file)
    for index in dirtyL1.sorted() {
      try file.write(l1[index].bigEndianBytes.span, at: header.l1Offset + UInt64(index) * 8)
      dirtyL1.remove(index)
    }
  }

  /// What has to be in the header before anything else is written. ("Autoclear features": a program
  /// that doesn't know one clears its bit.)
  mutating func prepareWriting() throws(StorageError) {
    if let damage { throw damage }
    guard mustPrepare else { return }
    if header.version >= 3 {
      try file.write(UInt64(0).bigEndianBytes.span, at: 88)
      try file.flush()
      header.autoclear = 0
    }
    mustPrepare = false
  }

  /// Takes note of an error that work on an image's tables met, and returns what to say of it. Tables
  /// that contradict themselves are marked so in the header, and nobody writes the image until it has
  /// been repaired. ("Incompatible features", corrupt bit)
  mutating func note(_ error: StorageError) -> StorageError {
    guard case .corrupt(let what) = error, damage == nil else { return error }
    let noted = StorageError.corrupt(
      "\(what); nothing is written to it any longer; what mends it: \(.repair)")
    damage = noted
    header.incompatible |= Qcow2Header.Incompatible.corrupt
    if header.version >= 3 {
      // Where even this fails, the image stays as it is, and that is all that matters.
      try? file.write(header.incompatible.bigEndianBytes.span, at: 72)
      try? file.flush()
    }
    return noted
  }

  /// Refuses a place in the file that isn't for the disk's data.
  mutating func checkIsForData(_ host: UInt64, clusters: UInt64) throws(StorageError) {
    if ownClusters == nil { ownClusters = findOwnClusters() }
    for cluster in host >> clusterBits..<(host >> clusterBits) + clusters
    where ownClusters?.contains(cluster) == true {
      throw .corrupt("data at \(cluster << clusterBits), where its tables are")
    }
  }

  private func findOwnClusters() -> Set<UInt64> {
    var own: Set<UInt64> = [0]
    let bits = clusterBits
    func add(_ offset: UInt64, _ bytes: UInt64) {
      guard bytes > 0 else { return }
      for cluster in offset >> bits...(offset + bytes - 1) >> bits { own.insert(cluster) }
    }
    add(header.l1Offset, UInt64(header.l1Count) * 8)
    add(header.refcountTableOffset, UInt64(header.refcountTableClusters) << bits)
    for entry in l1 + refcountTable where entry & Qcow2Entry.offsetMask != 0 {
      own.insert((entry & Qcow2Entry.offsetMask) >> bits)
    }
    return own
  }
}
