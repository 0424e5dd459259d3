/// A note of an ELF file: lengths of owner and description, type, owner, description, each padded
/// to 4.
func note(_ owner: String, _ type: UInt64, _ description: [UInt8]) -> [UInt8] {
  let name = Array(owner.utf8) + [0]
  func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
  }
  return littleEndian(UInt64(name.count), 4) + littleEndian(UInt64(description.count), 4)
    + littleEndian(type, 4) + padded(name) + padded(description)
}

extension ELFBuilder {
  /// A kernel with a PVH entry point.
  static func pvh(entry: [UInt8] = littleEndian(0x10_0000, 4), is64Bit: Bool = true) -> ELFBuilder {
    var elf = ELFBuilder(is64Bit: is64Bit)
    elf.segments.append(.init(type: 4, contents: note("Xen", 18, entry)))
    return elf
  }

  /// A Linux kernel of 64 bits.
  static var vmlinux: ELFBuilder {
    var elf = ELFBuilder(entry: 0x100_0000)
    elf.segments = [
      .init(virtual: 0xFFFF_FFFF_8100_0000, physical: 0x100_0000, memorySize: 0x100_0000),
      .init(type: 4, contents: note("Linux", 0x100, [])),
    ]
    return elf
  }

  /// A Multiboot kernel; its header is the start of its one segment.
  static func multiboot(
    flags: UInt32 = 3, addresses: [UInt32] = [], is64Bit: Bool = false
  ) -> ELFBuilder {
    var elf = ELFBuilder(is64Bit: is64Bit)
    elf.segments[0].contents = multibootHeader(flags: flags, addresses: addresses) + [0xF4]
    elf.entry += UInt64(12 + addresses.count * 4)
    return elf
  }
}

/// A Multiboot header with its checksum.
func multibootHeader(flags: UInt32, addresses: [UInt32] = []) -> [UInt8] {
  let words: [UInt32] = [0x1BAD_B002, flags, 0 &- 0x1BAD_B002 &- flags] + addresses
  return words.flatMap { littleEndian(UInt64($0), 4) }
}
