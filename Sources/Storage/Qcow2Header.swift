/// The header of a qcow2 image, checked. (docs/interop/qcow2 of QEMU, "Header")
struct Qcow2Header: Equatable, Sendable {
  /// What every qcow2 image begins with: `QFI` and 0xFB.
  static let magic: [UInt8] = [0x51, 0x46, 0x49, 0xFB]
  /// The most that the tables in memory may take, as in QEMU.
  static let largestL1 = 32 << 20
  static let largestRefcountTable = 8 << 20

  /// Bits of `incompatible`.
  enum Incompatible {
    static let dirty: UInt64 = 1 << 0
    static let corrupt: UInt64 = 1 << 1
    static let externalData: UInt64 = 1 << 2
    static let compressionType: UInt64 = 1 << 3
    static let extendedL2: UInt64 = 1 << 4
    static let known = dirty | corrupt | compressionType
  }

  /// An extension of the header, kept as it is.
  struct Extension: Equatable, Sendable {
    static let backingFormat: UInt32 = 0xE279_2ACA
    static let featureNames: UInt32 = 0x6803_F857
    static let bitmaps: UInt32 = 0x2385_2875
    /// kvmlite's own: what the base was like when the overlay was put on it.
    static let baseStamp: UInt32 = 0x6B76_6D62

    var type: UInt32
    var data: [UInt8]
  }

  var version: UInt32 = 3
  var clusterBits = 16
  /// The disk's size in bytes, as the header has it.
  var size: UInt64 = 0
  /// How many entries the L1 table has.
  var l1Count = 0
  var l1Offset: UInt64 = 0
  var refcountTableOffset: UInt64 = 0
  var refcountTableClusters = 0
  var incompatible: UInt64 = 0
  var compatible: UInt64 = 0
  var autoclear: UInt64 = 0
  /// A refcount has 2 to the power of this many bits.
  var refcountOrder = 4
  var compression = Compression.zlib
  var backingName: String?
  var extensions: [Extension] = []

  enum Compression: UInt8 {
    case zlib = 0
    case zstd = 1
  }

  var clusterSize: UInt64 { 1 << UInt64(clusterBits) }
  /// How many entries an L2 table has, as a power of two: each has 8 bytes.
  var l2Bits: Int { clusterBits - 3 }
  /// How many refcounts a refcount block has, as a power of two.
  var refcountBlockBits: Int { clusterBits + 3 - refcountOrder }
  /// How many entries the L1 table must have.
  var neededL1Count: UInt64 {
    let span = UInt64(clusterBits + l2Bits)
    return (size >> span) + (size & ((1 << span) - 1) == 0 ? 0 : 1)
  }
  var backingFormat: String? {
    extensions.first { $0.type == Extension.backingFormat }
      .map { String(decoding: $0.data, as: UTF8.self) }
  }

  init() {}

  /// Reads the header at the start of `bytes`, which are the image's first 2 MiB or less.
  init(_ bytes: [UInt8]) throws(StorageError) {
    guard bytes.count >= 72, Array(bytes[..<4]) == Self.magic else {
      throw .corrupt("it doesn't begin with a qcow2 header")
    }
    let fields = BigEndianBytes(bytes)
    version = fields.uint32(4)
    guard version == 2 || version == 3 else {
      throw .unsupported("qcow2 of version \(version); kvmlite knows 2 and 3")
    }
    let bits = fields.uint32(20)
    guard (9...21).contains(bits) else {
      throw .corrupt("clusters of 2 to the power of \(bits) bytes")
    }
    clusterBits = Int(bits)
    size = fields.uint64(24)
    guard size <= 1 << 62 else { throw .corrupt("a disk of \(size) bytes") }
    guard fields.uint32(32) == 0 else {
      throw .unsupported("an encrypted image; decrypt it: qemu-img convert")
    }
    guard fields.uint32(60) == 0 else {
      throw .unsupported(
        "internal snapshots, which kvmlite would damage; remove them: qemu-img snapshot -d")
    }
    try readFeatures(fields)
    try readTables(fields)
    try readRest(fields)
    try checkFeatures()
  }

  private mutating func readFeatures(_ fields: BigEndianBytes) throws(StorageError) {
    guard version >= 3 else { return }
    guard fields.count >= 104 else { throw .truncated }
    incompatible = fields.uint64(72)
    compatible = fields.uint64(80)
    autoclear = fields.uint64(88)
    let order = fields.uint32(96)
    guard order <= 6 else { throw .corrupt("refcounts of 2 to the power of \(order) bits") }
    refcountOrder = Int(order)
    if fields.uint32(100) >= 112, fields.count >= 112 {
      guard let type = Compression(rawValue: fields.bytes[104]) else {
        throw .unsupported("clusters compressed by method \(fields.bytes[104])")
      }
      compression = type
    }
  }

  private mutating func readTables(_ fields: BigEndianBytes) throws(StorageError) {
    let l1 = fields.uint32(36)
    guard l1 <= UInt32(Self.largestL1 / 8) else { throw .corrupt("an L1 table of \(l1) entries") }
    l1Count = Int(l1)
    l1Offset = fields.uint64(40)
    guard neededL1Count <= UInt64(l1Count) else {
      throw .corrupt("an L1 table of \(l1) entries, where the disk's size needs \(neededL1Count)")
    }
    refcountTableOffset = fields.uint64(48)
    let clusters = fields.uint32(56)
    guard clusters >= 1,
      UInt64(clusters) << UInt64(clusterBits) <= UInt64(Self.largestRefcountTable)
    else { throw .corrupt("a refcount table of \(clusters) clusters") }
    refcountTableClusters = Int(clusters)
    for (name, offset) in [("L1", l1Offset), ("refcount", refcountTableOffset)] {
      let isAbsent = name == "L1" && l1Count == 0
      guard isAbsent || (offset >= clusterSize && offset < 1 << 56 && offset % clusterSize == 0)
      else { throw .corrupt("the \(name) table can't be at \(offset)") }
    }
  }

  private mutating func readRest(_ fields: BigEndianBytes) throws(StorageError) {
    let length = version == 2 ? 72 : Int(fields.uint32(100))
    guard length >= (version == 2 ? 72 : 104), length <= Int(clusterSize), length <= fields.count
    else { throw .corrupt("a header of \(length) bytes") }
    let nameOffset = fields.uint64(8)
    let nameLength = fields.uint32(16)
    var end = min(Int(clusterSize), fields.count)
    if nameOffset != 0 {
      guard nameLength <= 1023, nameOffset >= UInt64(length), nameOffset <= UInt64(end),
        UInt64(nameLength) <= UInt64(end) - nameOffset
      else { throw .corrupt("the name of its backing file isn't in the header") }
      end = Int(nameOffset)
      let name = Array(fields.bytes[end..<end + Int(nameLength)])
      guard !name.contains(0) else { throw .corrupt("the name of its backing file has a zero") }
      if nameLength > 0 { backingName = String(decoding: name, as: UTF8.self) }
    }
    var position = length
    while position + 8 <= end {
      let type = fields.uint32(position)
      if type == 0 { break }
      let count = Int(fields.uint32(position + 4))
      guard count <= end - position - 8 else {
        throw .corrupt("a header extension that is too long")
      }
      let start = position + 8
      extensions.append(Extension(type: type, data: Array(fields.bytes[start..<start + count])))
      position = start + (count + 7) & ~7
    }
  }

  private func checkFeatures() throws(StorageError) {
    if incompatible & Incompatible.extendedL2 != 0 {
      throw .unsupported("extended L2 entries; convert it: qemu-img convert -O qcow2")
    }
    if incompatible & Incompatible.externalData != 0 {
      throw .unsupported("an external data file; convert it: qemu-img convert -O qcow2")
    }
    let unknown = incompatible & ~Incompatible.known
    guard unknown == 0 else {
      let names = (0..<64).filter { unknown >> UInt64($0) & 1 != 0 }
        .map { featureName($0) ?? "bit \($0)" }
      throw .unsupported("features that kvmlite doesn't know: \(names.joined(separator: ", "))")
    }
    if (compression != .zlib) != (incompatible & Incompatible.compressionType != 0) {
      throw .corrupt("its compression method and its feature bits contradict each other")
    }
  }

  /// What the image itself calls an incompatible feature. ("Feature name table")
  private func featureName(_ bit: Int) -> String? {
    guard let table = extensions.first(where: { $0.type == Extension.featureNames })?.data else {
      return nil
    }
    for start in stride(from: 0, to: table.count - 47, by: 48)
    where table[start] == 0 && Int(table[start + 1]) == bit {
      let name = table[start + 2..<start + 48].prefix { $0 != 0 }
      // What is printed to a terminal is nobody else's to choose.
      return String(
        decoding: name.map { (0x20..<0x7F).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }
    return nil
  }
}

/// Big-endian numbers in bytes; reading outside them is a mistake of kvmlite's own.
struct BigEndianBytes {
  let bytes: [UInt8]
  var count: Int { bytes.count }
  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func uint32(_ offset: Int) -> UInt32 {
    bytes[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) }
  }
  func uint64(_ offset: Int) -> UInt64 {
    bytes[offset..<offset + 8].reduce(0) { $0 << 8 | UInt64($1) }
  }
}

extension FixedWidthInteger {
  /// Its bytes, the highest first.
  var bigEndianBytes: [UInt8] {
    (0..<Self.bitWidth / 8).map {
      UInt8(truncatingIfNeeded: self >> Self(Self.bitWidth - 8 - 8 * $0))
    }
  }
}
