import Boot
import TestSupport
import Testing

@Suite("A format is found from the bytes", .limited)
struct ImageFormatTests {
  private func format(_ bytes: [UInt8]) throws -> ImageFormat {
    try ImageFormat(of: bytes, name: "guest")
  }

  /// `magic` at `offset` in an image of `count` bytes.
  private func image(_ magic: [UInt8], at offset: Int = 0, count: Int = 64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0x90, count: max(count, offset + magic.count))
    bytes.replaceSubrange(offset..<offset + magic.count, with: magic)
    return bytes
  }

  @Test func anyBytesAreFlat() throws {
    #expect(try format([0xF4]) == .flat)
    // One byte of the ELF magic missing.
    #expect(try format([0x7F, 0x45, 0x4C]) == .flat)
  }

  @Test func emptyImageIsRefused() throws {
    expect(try refusal([]), .malformed, says: "is empty")
  }

  @Test func bootSectorHasExactly512BytesAndTheSignature() throws {
    let sector = image([0x55, 0xAA], at: 510)
    #expect(sector.count == 512)
    #expect(try format(sector) == .bootSector)
    expect(try refusal(sector + [0]), .unsupported, says: "bootable disk", "firmware")
    expect(try refusal(image([0x55, 0xAA], at: 510, count: 1_474_560)), .unsupported, says: "disk")
    #expect(try format(image([0xAA, 0x55], at: 510)) == .flat)
  }

  @Test func linuxKernelHasItsHeadersMagic() throws {
    var kernel = image([0x55, 0xAA], at: 0x1FE, count: 4096)
    kernel.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
    // Kernels with an EFI stub are PE files too.
    kernel.replaceSubrange(0..<2, with: Array("MZ".utf8))

    #expect(try format(kernel) == .bzImage)
    kernel[0x1FE] = 0
    #expect(try format(kernel) == .flat)
  }

  @Test func plainELFComesInTwoClasses() throws {
    #expect(try format(ELFBuilder(is64Bit: false).bytes) == .elf32)
    #expect(try format(ELFBuilder(is64Bit: true).bytes) == .elf64)
  }

  @Test(arguments: [true, false])
  func multibootHeaderIsFound(is64Bit: Bool) throws {
    let elf = ELFBuilder.multiboot(is64Bit: is64Bit)
    #expect(elf.headerSize % 4 == 0 && elf.entrySize % 4 == 0)
    #expect(try format(elf.bytes) == .multiboot)

    // Out of alignment, with a wrong sum, and beyond the first 8 KiB it is no header.
    var other = elf
    other.segments[0].contents.insert(0, at: 0)
    #expect(try format(other.bytes) != .multiboot)
    other = elf
    other.segments[0].contents[8] ^= 1
    #expect(try format(other.bytes) != .multiboot)
    other = elf
    other.segments[0].contents.insert(contentsOf: [UInt8](repeating: 0x90, count: 8192), at: 0)
    #expect(try format(other.bytes) != .multiboot)
  }

  @Test func multiboot2HeaderIsRefusedByName() throws {
    var elf = ELFBuilder()
    // Magic 0xE85250D6, architecture 0 (i386), length 16, checksum.
    elf.segments[0].contents =
      littleEndian(0xE852_50D6, 4) + littleEndian(0, 4) + littleEndian(16, 4)
      + littleEndian(0 &- 0xE852_50D6 &- 16, 4)
    expect(try refusal(elf.bytes), .unsupported, says: "Multiboot2", "ELF entry")
    // A flat one, from the header on and behind 64 bytes.
    let header = elf.segments[0].contents
    for offset in [0, 64] {
      expect(try refusal(image(header, at: offset)), .unsupported, says: "Multiboot2")
    }
    #expect(try format(image(header, at: 4)) == .flat)
  }

  @Test(
    "text is no guest, whatever its letters, and points to the assembler",
    arguments: ["hlt\n", "// mode: real\r\n\tmov $'é', %al\r\n\thlt", "# notes\n\n* ∀x\n"])
  func text(text: String) throws {
    expect(try refusal(Array(text.utf8)), .unsupported, says: "a text file", "scripts/guest")
    #expect(try format(Array(text.utf8) + [0]) == .flat)
  }

  @Test func codeIsNoText() throws {
    // mov al,'\n'; out 0xe9,al; hlt
    #expect(try format([0xB0, 0x0A, 0xE6, 0xE9, 0xF4]) == .flat)
  }

  @Test func pvhNoteIsFoundAmongOthers() throws {
    var elf = ELFBuilder()
    let others =
      note("GNU", 3, [1, 2, 3, 4, 5]) + note("Other", 18, [0]) + note("Xen", 6, [9])
    let pvh = note("Xen", 18, littleEndian(0x10_0000, 4))
    elf.segments.append(.init(type: 4, contents: others + pvh))
    #expect(try format(elf.bytes) == .pvh)

    elf.segments[1].contents = others
    #expect(try format(elf.bytes) == .elf64)
    // A note cut short, or with lengths past everything, is none.
    elf.segments[1].contents = Array(others + pvh.dropLast(8))
    #expect(try format(elf.bytes) == .elf64)
    elf.segments[1].contents = littleEndian(UInt64.max, 8) + pvh
    #expect(try format(elf.bytes) == .elf64)
    // So is one whose segment lies outside the file.
    elf.segments[1] = .init(type: 4, contents: pvh, offset: UInt64.max - 4)
    #expect(try format(elf.bytes) == .elf64)
  }

  @Test(arguments: [
    ([0x1F, 0x8B, 0x08], 0, "gunzip"),
    ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00], 0, "unxz"),
    ([0x28, 0xB5, 0x2F, 0xFD], 0, "unzstd"),
    (Array("CD001".utf8), 0x8001, "ISO 9660"),
    (Array("QFI".utf8) + [0xFB], 0, "qcow2"), (Array("KDMV".utf8), 0, "VMDK"),
    (Array("conectix".utf8), 0, "VHD"), (Array("vhdxfile".utf8), 0, "VHDX"),
    (Array("QED\0".utf8), 0, "QED"), ([0x7F, 0x10, 0xDA, 0xBE], 64, "VDI"),
    (Array("#!".utf8), 0, "script"),
    (Array("070701".utf8), 0, "give the kernel"),
    (Array("!<arch>\n".utf8), 0, "static library"),
    (Array("BZh".utf8), 0, "bunzip2"),
    ([0x04, 0x22, 0x4D, 0x18], 0, "unlz4"),
    ([0x02, 0x21, 0x4C, 0x18], 0, "bzImage (vmlinuz)"),
    (Array("zimg".utf8), 4, "EFI zboot"),
    (Array("RSC".utf8) + [5], 56, "RISC-V"),
    ([0x18, 0x28, 0x6F, 0x01], 36, "Linux kernel for ARM"),
    ([0x27, 0x05, 0x19, 0x56], 0, "U-Boot image"),
    ([0xCF, 0xFA, 0xED, 0xFE], 0, "Mach-O"),
    ([0xCA, 0xFE, 0xBA, 0xBE], 0, "Mach-O"),
    (Array("ARM".utf8) + [0x64], 56, "AArch64"),
  ])
  func foreignFilesAreNamed(magic: [UInt8], offset: Int, words: String) throws {
    expect(try refusal(image(magic, at: offset)), .unsupported, says: words, "no guest")
    // All but the last byte of the magic says nothing.
    #expect(try format(image(magic.dropLast(), at: offset)) == .flat)
  }

  @Test func windowsProgramIsNamed() throws {
    // A DOS header whose e_lfanew at 0x3C leads to "PE\0\0" at 0x80.
    var program = image(Array("MZ".utf8), count: 256)
    program.replaceSubrange(0x3C..<0x40, with: littleEndian(0x80, 4))
    program.replaceSubrange(0x80..<0x84, with: Array("PE".utf8) + [0, 0])
    expect(try refusal(program), .unsupported, says: "PE")
    // "MZ" is also two instructions: dec bp; pop dx.
    #expect(try format(Array("MZ".utf8)) == .flat)
    program.replaceSubrange(0x3C..<0x40, with: littleEndian(0xFFFF_FFFF, 4))
    #expect(try format(program) == .flat)
  }
}
