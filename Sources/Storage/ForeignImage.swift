import Host

/// A disk image of a format that kvmlite doesn't read, found by its magic number: as a raw disk it would
/// be nonsense to a guest, and what that writes would be the end of it.
enum ForeignImage: String, CaseIterable {
  case vmdk, vdi, vpc, vhdx, qed, parallels, bochs, gzip, xz, zstd, bzip2, lz4

  /// How many bytes of an image tell.
  static let size = 72

  /// What `start`, an image's first bytes, begins as; nil for none of these.
  init?(_ start: [UInt8]) {
    let found = Self.allCases.first { format in
      format.magics.contains { magic, offset in start.dropFirst(offset).starts(with: magic) }
    }
    guard let found else { return nil }
    self = found
  }

  private var magics: [(magic: [UInt8], offset: Int)] {
    switch self {
    case .vmdk: ["KDMV", "COWD", "# Disk DescriptorFile"].map { (Array($0.utf8), 0) }
    // VDICORE.h: the signature is behind 64 bytes of text.
    case .vdi: [([0x7F, 0x10, 0xDA, 0xBE], 64)]
    case .vpc: [(Array("conectix".utf8), 0)]
    case .vhdx: [(Array("vhdxfile".utf8), 0)]
    case .qed: [(Array("QED\0".utf8), 0)]
    case .parallels: ["WithoutFreeSpace", "WithouFreSpacExt"].map { (Array($0.utf8), 0) }
    case .bochs: [(Array("Bochs Virtual HD Image".utf8), 0)]
    case .gzip: [([0x1F, 0x8B, 0x08], 0)]
    case .xz: [([0xFD] + Array("7zXZ\0".utf8), 0)]
    case .zstd: [([0x28, 0xB5, 0x2F, 0xFD], 0)]
    // The block's own number follows the level.
    case .bzip2: (1...9).map { (Array("BZh\($0)1AY&SY".utf8), 0) }
    case .lz4: [([0x04, 0x22, 0x4D, 0x18], 0)]
    }
  }

  private var isCompression: Bool {
    switch self {
    case .gzip, .xz, .zstd, .bzip2, .lz4: true
    default: false
    }
  }

  /// What it is and what to do with it, for the image called `path`.
  func error(_ path: String) -> DiskError {
    let remedy =
      isCompression
      ? "unpack it first"
      : "make a qcow2 image of it first, as by qemu-img convert -O qcow2"
    let what =
      isCompression ? "compressed with \(rawValue)" : "a disk image in the format \(rawValue)"
    return DiskError(
      .malformed, path,
      "is \(what), which kvmlite doesn't read: \(remedy); if it is a raw disk that only "
        + "begins like one, say format raw")
  }
}
