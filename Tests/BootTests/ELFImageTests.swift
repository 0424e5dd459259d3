import Boot
import Memory
import TestSupport
import Testing

@Suite("ELF images", .limited)
struct ELFImageTests {
  @Test func elf64StartsInLongMode() throws {
    let plan = try plan(ELFBuilder().bytes)
    #expect(plan.format == .elf64)
    #expect(plan.entry.mode == .long && plan.entry.instructionPointer == 0x10_0000)
    #expect(plan.entry.stackPointer == 0x10000 && plan.entry.pageTableRoot == 0x1000)
    #expect(plan.pieces.map(\.start) == [0x500, 0x1000, 0x10_0000])
    #expect(try Array(plan.piece("segment 0").contents) == [0xF4])
  }

  @Test func elf32StartsInProtectedMode() throws {
    let plan = try plan(ELFBuilder(is64Bit: false).bytes)
    #expect(plan.format == .elf32)
    #expect(plan.entry.mode == .protected && plan.entry.instructionPointer == 0x10_0000)
    #expect(plan.entry.pageTableRoot == nil && plan.entry.code.is32Bit)
    #expect(plan.pieces.map(\.start) == [0x500, 0x10_0000])
  }

  @Test func modeMayBeSaidIfItIsTheOne() throws {
    _ = try plan(ELFBuilder().bytes, mode: .long)
    _ = try plan(ELFBuilder(is64Bit: false).bytes, mode: .protected)
    expect(
      try refusal(ELFBuilder().bytes, mode: .protected), .options, says: "mode protected",
      "a 64-bit ELF image", "long mode", "leave mode out")
    expect(
      try refusal(ELFBuilder(is64Bit: false).bytes, mode: .real), .options, says: "mode real",
      "a 32-bit ELF image", "protected mode")
    expect(
      try refusal(ELFBuilder().bytes, at: 0x20000), .options, says: "loadAddress 0x20000",
      "a 64-bit ELF image")
  }

  @Test(arguments: [true, false])
  func segmentsGoToTheirPhysicalAddresses(is64Bit: Bool) throws {
    var elf = ELFBuilder(is64Bit: is64Bit)
    elf.segments = [
      .init(virtual: 0x8030_0000, physical: 0x30_0000, contents: [1, 2, 3], memorySize: 0x5000),
      .init(type: 0x6474_E551, physical: 0, contents: [9]),  // PT_GNU_STACK
      .init(virtual: 0x8020_0000, physical: 0x20_0000, contents: [0x90, 0xF4]),
      .init(virtual: 0x8040_0000, physical: 0x40_0000, contents: [], memorySize: 0x1000),
      .init(physical: 0, contents: [], memorySize: 0),
    ]
    elf.entry = 0x8020_0001

    let plan = try plan(elf.bytes)
    let segments = plan.pieces.filter { $0.what.hasPrefix("segment") }
    #expect(segments.map(\.what) == ["segment 2", "segment 0", "segment 3"])
    #expect(segments.map(\.start) == [0x20_0000, 0x30_0000, 0x40_0000])
    #expect(segments.map(\.size) == [2, 0x5000, 0x1000])
    #expect(segments.map { Array($0.contents) } == [[0x90, 0xF4], [1, 2, 3], []])
    #expect(plan.entry.instructionPointer == 0x20_0001)
  }

  @Test func entryMayBePhysicalAsInLinux() throws {
    var elf = ELFBuilder()
    elf.segments[0].virtual = 0xFFFF_FFFF_8100_0000
    elf.segments[0].physical = 0x100_0000
    elf.entry = 0x100_0000
    #expect(try plan(elf.bytes).entry.instructionPointer == 0x100_0000)
    elf.entry = 0xFFFF_FFFF_8100_0000
    #expect(try plan(elf.bytes).entry.instructionPointer == 0x100_0000)
  }

  @Test func zerosWithoutBytesTakeTheirMemory() throws {
    // A BSS segment whose offset lies past the end of the file still takes its memory.
    var elf = ELFBuilder()
    elf.segments.append(
      .init(physical: 0x1000, contents: [], memorySize: 16, offset: 1 << 40))
    expect(try refusal(elf.bytes), .malformed, says: "segment 1", "page tables")
    elf.segments[1].physical = 0x20_0000
    let zeros = try plan(elf.bytes).piece("segment 1")
    #expect(zeros.contents.isEmpty && zeros.size == 16)
  }

  @Test func segmentsMayLieAbove4GiB() throws {
    var elf = ELFBuilder()
    elf.segments.append(.init(virtual: 0, physical: 0x1_0000_0000, contents: [7]))
    #expect(try plan(elf.bytes, ram: 4 << 30).piece("segment 1").start == 0x1_0000_0000)
    expect(
      try refusal(elf.bytes, ram: 3 << 30), .memory, says: "segment 1", "0x100000000",
      "(0x0 to 0xbfffffff)", "memorySize 3073M")
    elf.segments[1].virtual = 0x4000_0000
    elf.entry = 0x4000_0000
    expect(try refusal(elf.bytes, ram: 4 << 30), .unsupported, says: "0x100000000", "4 GiB")
  }
}
