import Boot
import TestSupport
import Testing

@Suite("ELF images that are refused", .limited)
struct ELFErrorTests {
  @Test(arguments: [true, false])
  func everyTruncationIsRefused(is64Bit: Bool) throws {
    let elf = ELFBuilder(is64Bit: is64Bit)
    let bytes = elf.bytes
    for count in 4..<bytes.count {
      let error = try refusal(Array(bytes.prefix(count)))
      let words =
        switch count {
        case ..<elf.headerSize: "ends within its ELF header: it has \(count) bytes"
        case ..<(elf.headerSize + elf.entrySize): "ends within its program headers"
        default: "segment 0 takes 1 bytes"
        }
      expect(error, .malformed, says: words, "cut short")
    }
  }

  @Test func classAndByteOrderMustBeKnown() throws {
    var bytes = ELFBuilder().bytes
    bytes[4] = 3
    expect(try refusal(bytes), .malformed, says: "class 3")
    bytes = ELFBuilder(dataEncoding: 0).bytes
    expect(try refusal(bytes), .malformed, says: "byte order 0")
  }

  @Test(
    arguments: [
      (40, "ARM"), (183, "AArch64"), (243, "RISC-V"), (8, "MIPS"), (258, "LoongArch"),
      (0x1234, "machine 4660"),
    ] as [(UInt16, String)])
  func otherMachinesAreNamed(machine: UInt16, name: String) throws {
    for is64Bit in [true, false] {
      let elf = ELFBuilder(is64Bit: is64Bit, machine: machine)
      expect(try refusal(elf.bytes), .unsupported, says: "for \(name)", "x86-64 or i386")
    }
  }

  @Test func bigEndianIsNamedWithItsMachine() throws {
    let elf = ELFBuilder(dataEncoding: 2, machine: 22)
    expect(try refusal(elf.bytes), .unsupported, says: "big-endian", "IBM Z")
  }

  @Test func mixturesOfTheTwoX86AreRefused() throws {
    expect(
      try refusal(ELFBuilder(is64Bit: false, machine: 62).bytes), .unsupported, says: "x32",
      "-m elf_i386")
    expect(
      try refusal(ELFBuilder(is64Bit: true, machine: 3).bytes), .malformed,
      says: "64-bit ELF file for i386")
  }

  @Test(
    arguments: [
      (1, .unsupported, "link it, as with ld"), (3, .unsupported, "-no-pie"),
      (4, .unsupported, "core dump"), (0xFE00, .malformed, "type 65024"),
    ] as [(UInt16, BootError.Cause, String)])
  func onlyExecutablesStart(type: UInt16, cause: BootError.Cause, words: String) throws {
    expect(try refusal(ELFBuilder(type: type).bytes), cause, says: words)
  }

  @Test func dynamicallyLinkedProgramsAreRefused() throws {
    var elf = ELFBuilder()
    elf.segments.append(.init(type: 3, contents: Array("/lib64/ld.so".utf8)))
    expect(try refusal(elf.bytes), .unsupported, says: "PT_INTERP", "-static")
  }

  @Test func programHeadersAreLimited() throws {
    let parts = (0..<128).map {
      ELFBuilder.Segment(
        virtual: 0x10_0000 + UInt64($0) * 16, physical: 0x10_0000 + UInt64($0) * 16)
    }
    #expect(try plan(ELFBuilder(segments: parts).bytes).pieces.count == 130)
    expect(
      try refusal(ELFBuilder(segments: parts + [.init()]).bytes), .malformed,
      says: "129 program headers", "at most 128")
    // PN_XNUM
    expect(
      try refusal(ELFBuilder(programHeaderCount: 0xFFFF).bytes), .malformed, says: "65535")
  }

  @Test func programHeadersMustBeInTheFileAndOfTheirSize() throws {
    expect(
      try refusal(ELFBuilder(programHeaderSize: 32).bytes), .malformed, says: "32 bytes",
      "e_phentsize", "56")
    for offset in [66, 1 << 40, UInt64.max, UInt64.max - 55] {
      expect(
        try refusal(ELFBuilder(programHeaderOffset: offset).bytes), .malformed,
        says: "ends within its program headers", "0x" + String(offset, radix: 16))
    }
  }

  @Test func somethingMustBeLoaded() throws {
    expect(try refusal(ELFBuilder(segments: []).bytes), .malformed, says: "no PT_LOAD")
    let note = ELFBuilder.Segment(type: 4)
    expect(try refusal(ELFBuilder(segments: [note]).bytes), .malformed, says: "no PT_LOAD")
    let empty = ELFBuilder.Segment(contents: [])
    expect(try refusal(ELFBuilder(segments: [empty]).bytes), .malformed, says: "no PT_LOAD")
  }

  private func withSegment(_ change: (inout ELFBuilder.Segment) -> Void) -> [UInt8] {
    // The first segment is sound and holds the entry point.
    var second = ELFBuilder.Segment(virtual: 0x20_0000, physical: 0x20_0000)
    change(&second)
    return ELFBuilder(segments: [.init(), second]).bytes
  }

  @Test func segmentMustBeInTheFile() throws {
    expect(
      try refusal(withSegment { $0.fileSize = 2 }), .malformed, says: "segment 1 takes 2 bytes",
      "the file has only")
    expect(
      try refusal(withSegment { $0.offset = UInt64.max }), .malformed, says: "segment 1",
      "0xffffffffffffffff")
    expect(
      try refusal(withSegment { $0.fileSize = UInt64.max }), .malformed, says: "cut short")
  }

  @Test func segmentMustHoldItsBytes() throws {
    expect(
      try refusal(withSegment { $0.memorySize = 0 }), .malformed, says: "segment 1", "p_filesz",
      "p_memsz")
  }

  @Test func segmentMustNotPassTheLastAddress() throws {
    expect(
      try refusal(withSegment { $0.physical = UInt64.max }), .malformed, says: "segment 1",
      "past the last address")
    expect(
      try refusal(withSegment { $0.memorySize = UInt64.max }), .malformed,
      says: "past the last address")
  }

  @Test func segmentMustBeInRAM() throws {
    expect(
      try refusal(
        withSegment {
          $0.physical = 0x7FF_FFFF; $0.memorySize = 2
        }), .memory,
      says: "segment 1 (0x7ffffff to 0x8000000)", "(0x0 to 0x7ffffff)", "memorySize 129M")
    expect(
      try refusal(withSegment { $0.physical = 0xFEE0_0000 }), .memory,
      says: "no memorySize changes that", "belongs to devices")
    expect(
      try refusal(withSegment { $0.physical = 1 << 46 }), .memory,
      says: "no memorySize changes that")
    expect(
      try refusal(withSegment { $0.memorySize = 4 << 30 }), .memory,
      says: "no memorySize changes that")
  }

  @Test func messageAsksForEnoughMemoryAtOnce() throws {
    let parts = [0x10_0000, 0x4000_0000, 0x8000_0000].map {
      ELFBuilder.Segment(virtual: $0, physical: $0)
    }
    expect(
      try refusal(ELFBuilder(segments: parts).bytes), .memory, says: "segment 2", "memorySize 2049M"
    )
  }

  @Test func segmentsMustNotOverlap() throws {
    expect(
      try refusal(
        withSegment {
          $0.physical = 0xF_FFFF; $0.memorySize = 2
        }), .malformed,
      says: "segment 1 (0xfffff to 0x100000) overlaps segment 0 (0x100000 to 0x100000)")
    _ = try plan(withSegment { $0.physical = 0xF_FFFF })
    _ = try plan(withSegment { $0.physical = 0x10_0001 })
  }

  @Test(
    arguments: [
      (0x517, "kvmlite's GDT"), (0x6FFF, "kvmlite's page tables"), (0xFF00, "the first stack"),
    ] as [(UInt64, String)])
  func segmentMustNotLieOnWhatKvmlitePutsThere(address: UInt64, what: String) throws {
    expect(
      try refusal(withSegment { $0.physical = address }), .malformed, says: "segment 1", what,
      "link it elsewhere")
    _ = try plan(withSegment { $0.physical = 0x7000 })
  }

  @Test func entryMustBeInASegmentsBytes() throws {
    for entry in [0, 0xF_FFFF, 0x10_0001, UInt64.max] {
      var elf = ELFBuilder(entry: entry)
      elf.segments[0].memorySize = 0x1000
      expect(
        try refusal(elf.bytes), .malformed, says: "0x" + String(entry, radix: 16), "e_entry",
        "_start")
    }
  }
}
