import Host

/// An ELF file as far as loading it goes: its entry point and program headers, none yet believed.
///
/// Figures and sections are those of the System V ABI's chapters 4 and 5 (the ELF specification).
struct ELF {
  static let magic: [UInt8] = [0x7F] + Array("ELF".utf8)
  /// More than any kernel has, and few enough to compare each with each.
  static let mostProgramHeaders = 128

  let is64Bit: Bool
  let entry: UInt64
  let programHeaders: [ProgramHeader]

  /// Reads the headers of `image`, which starts with the magic number.
  init(_ image: Image) throws(BootError) {
    let header = try ELFHeader(image)
    try header.requireExecutable(image)
    is64Bit = header.is64Bit
    entry = header.entry
    programHeaders = try Self.programHeaders(header, image)
  }

  private static func programHeaders(
    _ header: ELFHeader, _ image: Image
  ) throws(BootError) -> [ProgramHeader] {
    let count = Int(header.programHeaderCount)
    // PN_XNUM, 0xFFFF, is among the refused: the true number would be in a section header.
    guard count <= mostProgramHeaders else {
      throw image.error(
        .malformed,
        "has \(count) program headers (e_phnum), and kvmlite takes at most \(mostProgramHeaders): "
          + "link it with fewer segments")
    }
    guard count > 0 else { return [] }
    let size = header.is64Bit ? ProgramHeader.size64 : ProgramHeader.size32
    guard Int(header.programHeaderSize) == size else {
      throw image.error(
        .malformed,
        "says its program headers have \(header.programHeaderSize) bytes (e_phentsize), but in a "
          + "\(header.bits)-bit ELF file they have \(size): the file is damaged; build it again")
    }
    guard image.slice(header.programHeaderOffset, count: UInt64(count * size)) != nil else {
      throw image.error(
        .malformed,
        "ends within its program headers: \(count) from \(hex(header.programHeaderOffset)) on, "
          + "but it has only \(image.count) bytes: the file is cut short; copy or build it again")
    }
    let start = Int(header.programHeaderOffset)
    return (0..<count).map {
      ProgramHeader(index: $0, is64Bit: header.is64Bit, image, at: start + $0 * size)
    }
  }
}

/// One entry of the program header table (figure 5-1).
struct ProgramHeader {
  static let size32 = 32
  static let size64 = 56

  /// What the entry describes (figure 5-2).
  enum Kind {
    static let load: UInt32 = 1
    static let interpreter: UInt32 = 3
    static let note: UInt32 = 4
  }

  let index: Int
  let kind: UInt32
  let offset: UInt64
  let virtual: UInt64
  let physical: UInt64
  let fileSize: UInt64
  let memorySize: UInt64

  /// Reads the entry at `position`, all of which is inside the image.
  init(index: Int, is64Bit: Bool, _ image: Image, at position: Int) {
    var fields = ELFFields(image: image, is64Bit: is64Bit, position: position)
    self.index = index
    kind = fields.word()
    // Only ELF64 has p_flags here, where it keeps the next field aligned.
    if is64Bit { _ = fields.word() }
    offset = fields.address()
    virtual = fields.address()
    physical = fields.address()
    fileSize = fields.address()
    memorySize = fields.address()
  }

  /// How messages call it: by its number in `readelf -l`, counted from 0.
  var name: String { "segment \(index)" }
}

/// Reads the fields of a header one after the other (figure 4-2 for their types).
struct ELFFields {
  let image: Image
  let is64Bit: Bool
  var position: Int

  /// An Elf32_Half or Elf64_Half: 16 bits.
  mutating func half() -> UInt16 { next(UInt16.self) }

  /// An Elf32_Word or Elf64_Word: 32 bits.
  mutating func word() -> UInt32 { next(UInt32.self) }

  /// An Elf32_Addr or Elf64_Addr, or an offset or size of the same width.
  mutating func address() -> UInt64 { is64Bit ? next(UInt64.self) : UInt64(next(UInt32.self)) }

  // The callers have checked that the whole header is there; past the end all reads as zero.
  private mutating func next<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type) -> T {
    defer { position += T.bitWidth / 8 }
    return image.load(position, as: type) ?? 0
  }
}
