import Host

/// The header at the start of an ELF file (figure 4-3).
struct ELFHeader {
  let is64Bit: Bool
  let type: UInt16
  let machine: UInt16
  let entry: UInt64
  let programHeaderOffset: UInt64
  let programHeaderSize: UInt16
  let programHeaderCount: UInt16

  var bits: Int { is64Bit ? 64 : 32 }

  /// Reads the header of `image`: little-endian, of 32 or 64 bits, for an x86.
  init(_ image: Image) throws(BootError) {
    is64Bit = try Self.is64Bit(image)
    try Self.requireWhole(image, size: is64Bit ? 64 : 52)
    try Self.requireLittleEndian(image)
    var fields = ELFFields(image: image, is64Bit: is64Bit, position: 16)
    type = fields.half()
    machine = fields.half()
    try ELFMachine(machine).requireX86(is64Bit: is64Bit, image)
    _ = fields.word()  // e_version
    entry = fields.address()
    programHeaderOffset = fields.address()
    _ = fields.address()  // e_shoff
    _ = fields.word()  // e_flags
    _ = fields.half()  // e_ehsize
    programHeaderSize = fields.half()
    programHeaderCount = fields.half()
  }

  /// e_ident[EI_CLASS] ("ELF Identification").
  private static func is64Bit(_ image: Image) throws(BootError) -> Bool {
    try requireWhole(image, size: 16)
    switch image.bytes[4] {
    case 1: return false
    case 2: return true
    case let other:
      throw image.error(
        .malformed,
        "is an ELF file of class \(other) (byte 4), neither 32-bit (1) nor 64-bit (2): the file is "
          + "damaged; build it again")
    }
  }

  private static func requireWhole(_ image: Image, size: Int) throws(BootError) {
    guard image.bytes.count < size else { return }
    throw image.error(
      .malformed,
      "ends within its ELF header: it has \(image.count) bytes, the header takes \(size): the file "
        + "is cut short; copy or build it again")
  }

  /// e_ident[EI_DATA] ("Data Encoding").
  private static func requireLittleEndian(_ image: Image) throws(BootError) {
    switch image.bytes[5] {
    case 1: return
    case 2:
      let machine = ELFMachine(UInt16(image.bytes[18]) << 8 | UInt16(image.bytes[19]))
      throw image.error(
        .unsupported, "is a big-endian ELF file for \(machine.name); \(ELFMachine.remedy)")
    case let other:
      throw image.error(
        .malformed,
        "is an ELF file of byte order \(other) (byte 5), neither little-endian (1) nor big-endian "
          + "(2): the file is damaged; build it again")
    }
  }

  /// Refuses all but ET_EXEC (figure 4-3, e_type).
  func requireExecutable(_ image: Image) throws(BootError) {
    switch type {
    case 2: return
    case 1:
      throw image.error(
        .unsupported,
        "is an object file that has not been linked: link it, as with ld -o guest \(image.name)")
    case 3:
      throw image.error(
        .unsupported,
        "is a position-independent ELF file (ET_DYN: a PIE program or a shared library), which has "
          + "no address of its own: link it with -static -no-pie, at an address as -Ttext=0x100000")
    case 4:
      throw image.error(.unsupported, "is a core dump, no guest: give the program it came from")
    default:
      throw image.error(
        .malformed, "is an ELF file of type \(type), no executable (2): link it as a program")
    }
  }
}
