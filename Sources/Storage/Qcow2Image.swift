import Host
import Memory

/// Makes qcow2 images, and reads their headers.
enum Qcow2Image {
  /// The header of an open image.
  static func header(of file: HostDiskFile) throws(DiskError) -> Qcow2Header {
    do throws(StorageError) { return try readHeader(file) } catch {
      throw DiskError(file.path, error)
    }
  }

  static func readHeader(_ file: any DiskFile) throws(StorageError) -> Qcow2Header {
    func start(_ count: Int) throws(StorageError) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: count)
      var span = bytes.mutableSpan
      let came = try file.read(into: &span, at: 0)
      bytes.removeLast(count - came)
      return bytes
    }
    // The whole first cluster matters, and how long that is, is in the header.
    let short = try start(4096)
    if short.count >= 24, Array(short[..<4]) == Qcow2Header.magic {
      let bits = BigEndianBytes(short).uint32(20)
      if (13...21).contains(bits) { return try Qcow2Header(try start(1 << Int(bits))) }
    }
    return try Qcow2Header(short)
  }

  /// Whether `name` is a file's to QEMU, and not one for something else, such as nbd:...; a path with
  /// a colon has a slash before it.
  static func isFileName(_ name: String) -> Bool {
    guard let colon = name.utf8.firstIndex(of: UInt8(ascii: ":")) else { return true }
    return name.utf8[..<colon].contains(UInt8(ascii: "/"))
  }

  /// The path and the format of a header's backing file.
  static func base(
    of header: Qcow2Header, at path: String
  ) throws(DiskError) -> (path: String, format: DiskFormat) {
    guard let name = header.backingName else {
      throw DiskError(.usage, path, "has no backing file")
    }
    let shown = String(
      decoding: name.utf8.map { (0x20..<0x7F).contains($0) || $0 >= 0x80 ? $0 : UInt8(ascii: "?") },
      as: UTF8.self)
    guard isFileName(name) else {
      throw DiskError(.malformed, path, "its backing file '\(shown)' isn't a file's name")
    }
    guard let told = header.backingFormat else {
      throw DiskError(
        .malformed, path,
        "doesn't say which format its backing file '\(shown)' has, and a guess would be a guest's "
          + "to choose; what mends it: \(.rebase, path) \(.backing, "'\(shown)'") "
          + "\(.backingFormat, "raw|qcow2")")
    }
    guard let format = DiskFormat(rawValue: told) else {
      throw DiskError(
        .malformed, path, "its backing file '\(shown)' has a format that kvmlite doesn't know")
    }
    return (DiskImage.resolve(name, from: path), format)
  }

  /// What a new image is to be.
  struct Plan {
    var size: UInt64
    var clusterBits = 16
    var base: (name: String, format: DiskFormat, stamp: BaseStamp?)?
  }

  /// Writes an empty image into an empty file.
  static func make(_ plan: Plan, in file: any DiskFile) throws(StorageError) -> Qcow2Header {
    var header = Qcow2Header()
    header.size = plan.size
    header.clusterBits = plan.clusterBits
    header.setBase(plan.base)
    let size = header.clusterSize
    guard header.neededL1Count * 8 <= UInt64(Qcow2Header.largestL1) else {
      throw .unsupported("a disk of this size with clusters of \(size) bytes; take larger ones")
    }
    // In this order: header, refcount table, refcount blocks, L1 table.
    header.l1Count = max(1, Int(header.neededL1Count))
    let l1Clusters = (UInt64(header.l1Count) * 8 + size - 1) / size
    header.refcountTableClusters = 1
    let perBlock = UInt64(1) << UInt64(header.refcountBlockBits)
    var blocks: UInt64 = 1
    while 2 + blocks + l1Clusters > blocks * perBlock { blocks += 1 }
    while blocks > UInt64(header.refcountTableClusters) * (size / 8) {
      header.refcountTableClusters += 1
    }
    let tableClusters = UInt64(header.refcountTableClusters)
    let used = 1 + tableClusters + blocks + l1Clusters
    guard used <= blocks * perBlock else { throw .unsupported("a disk of this size") }
    header.refcountTableOffset = size
    let firstBlock = 1 + tableClusters
    header.l1Offset = (firstBlock + blocks) * size

    let table = (0..<blocks).map { (firstBlock + $0) * size }
    let counts = (0..<blocks * perBlock).map { $0 < used ? UInt64(1) : 0 }
    guard let bytes = header.serialized() else {
      throw .unsupported("a base with so long a name and clusters of \(size) bytes")
    }
    try file.setLength(used * size)
    try file.write(TableCache.encode(counts, 1 << header.refcountOrder).span, at: firstBlock * size)
    try file.write(TableCache.encode(table, 64).span, at: size)
    try file.write(bytes.span, at: 0)
    return header
  }

  /// An overlay that is nobody's once it's closed: it has no name.
  static func temporary(
    over base: any BlockStore, by makeFile: Errand
  ) throws(DiskError) -> Qcow2Disk {
    let directory = HostEnvironment.temporaryDirectory
    let host: HostDiskFile
    do throws(Errno) {
      guard let file = try makeFile.perform() else { throw .inputOutput }
      host = try HostDiskFile(try file.file.duplicate(), path: directory)
    } catch {
      throw DiskError(.host, directory, "no temporary file there: \(error); see TMPDIR")
    }
    do throws(StorageError) {
      let file = VolatileDiskFile(host)
      let header = try make(Plan(size: base.size), in: file)
      return try Qcow2Disk(file, header, base: base, isReadOnly: false)
    } catch { throw DiskError(directory, error) }
  }
}
