import Host

/// What an image says of itself.
package struct DiskInformation: Sendable {
  /// Its path.
  package let path: String
  /// Its format.
  package let format: DiskFormat
  /// How many bytes the disk has.
  package let size: UInt64
  /// How many bytes of the host's disk the file takes.
  package let allocated: UInt64
  /// What only qcow2 has; nil for raw.
  package let qcow2: Qcow2?
  /// The processes that use it now, as far as this one may see them.
  package let users: [LockHolder]

  /// What only qcow2 has.
  package struct Qcow2: Sendable {
    /// 2 or 3.
    package let version: Int
    /// How many bytes a cluster has.
    package let clusterSize: UInt64
    /// How many bits a refcount has.
    package let refcountBits: Int
    /// How clusters may be compressed: zlib or zstd.
    package let compression: String
    /// Its base's name, as it stands in the image.
    package let base: String?
    /// Its base's path.
    package let basePath: String?
    /// Its base's format, as it stands in the image.
    package let baseFormat: String?
    /// Whether its refcounts may be wrong since it wasn't closed.
    package let isDirty: Bool
    /// Whether somebody found it damaged.
    package let isCorrupt: Bool
    /// Whether its base was changed since it was put on it; nil if that isn't known.
    package let baseChanged: Bool?
  }

  /// Calls `body` for the image at `path` and for each that it is based on, the top one first, until
  /// one can't be read. Looks at images in use too.
  package static func forEach(
    of path: String, format: DiskFormat?, _ body: (DiskInformation) -> Void
  ) throws(DiskError) {
    var seen: Set<FileIdentity> = []
    var next: (path: String, format: DiskFormat?)? = (path, format)
    while let (path, format) = next {
      let file = try DiskImage.openFile(path, isReadOnly: true, ignoresLocks: true)
      guard seen.insert(file.facts.identity).inserted, seen.count <= DiskImage.deepestChain else {
        throw DiskError(.malformed, path, "images that are based on themselves, or too many")
      }
      let (one, base) = try information(file, format)
      body(one)
      next = base
    }
  }

  private static func information(
    _ file: HostDiskFile, _ told: DiskFormat?
  ) throws(DiskError) -> (DiskInformation, (path: String, format: DiskFormat?)?) {
    let format: DiskFormat
    if let told { format = told } else { format = try DiskImage.guessFormat(file) }
    let users = LockHolder.all(of: file.facts.identity)
    guard format == .qcow2 else {
      let length: UInt64
      do throws(StorageError) { length = try file.length() } catch {
        throw DiskError(file.path, error)
      }
      return (
        DiskInformation(
          path: file.path, format: .raw, size: (length + 511) & ~511,
          allocated: file.facts.allocated, qcow2: nil, users: users), nil
      )
    }
    let header = try Qcow2Image.header(of: file)
    let base: (path: String, format: DiskFormat)? =
      if header.backingName == nil { nil } else { try? Qcow2Image.base(of: header, at: file.path) }
    let facts = base.flatMap { try? FileFacts(of: $0.path) }
    let changed = header.baseStamp.flatMap { stamp in facts.map { BaseStamp($0) != stamp } }
    let qcow2 = Qcow2(
      version: Int(header.version), clusterSize: header.clusterSize,
      refcountBits: 1 << header.refcountOrder, compression: "\(header.compression)",
      base: header.backingName, basePath: base?.path, baseFormat: header.backingFormat,
      isDirty: header.incompatible & Qcow2Header.Incompatible.dirty != 0,
      isCorrupt: header.incompatible & Qcow2Header.Incompatible.corrupt != 0, baseChanged: changed)
    return (
      DiskInformation(
        path: file.path, format: .qcow2, size: (header.size + 511) & ~511,
        allocated: file.facts.allocated, qcow2: qcow2, users: users),
      base.map { ($0.path, $0.format) }
    )
  }
}
