import Boot
import Memory
import TestSupport
import Testing

@Suite("Flat images and boot sectors", .limited)
struct FlatImageTests {
  private let halt: [UInt8] = [0xF4]  // hlt
  private let sector = [UInt8](repeating: 0x90, count: 510) + [0x55, 0xAA]

  @Test func realModeIsTheDefault() throws {
    let plan = try plan(halt)
    #expect(plan.format == .flat)
    #expect(plan.pieces.map(\.start) == [0, 0x10000])
    #expect(plan.pieces.last?.contents == halt[...])
    let entry = plan.entry
    #expect(entry.mode == .real && entry.flags == 2)
    #expect(entry.instructionPointer == 0 && entry.stackPointer == 0xFFF0)
    #expect(entry.code.selector == 0x1000 && entry.code.base == 0x10000)
    #expect(entry.code.limit == 0xFFFF && entry.code.type == 11 && !entry.code.isGranular)
    #expect(entry.data.selector == 0x1000 && entry.data.base == 0x10000)
    #expect(entry.data.limit == 0xFFFF && entry.data.type == 3)
    #expect(!entry.code.is32Bit && !entry.code.is64Bit && !entry.data.is32Bit)
    #expect(entry.descriptorTable == nil && entry.pageTableRoot == nil)
  }

  @Test func realModeTakesALoadAddress() throws {
    let entry = try plan(halt, mode: .real, at: 0xFFFF0).entry
    #expect(entry.code.selector == 0xFFFF && entry.code.base == 0xFFFF0)
    expect(
      try refusal(halt, at: 0x10008), .options, says: "loadAddress 0x10008", "multiple of 16",
      "mode protected")
    expect(try refusal(halt, at: 0x100000), .options, says: "0x100000", "0xffff0")
  }

  @Test func realModeLeavesRoomForTheStack() throws {
    let most = 0xFFF0 - 256
    _ = try plan([UInt8](repeating: 0x90, count: most))
    expect(
      try refusal([UInt8](repeating: 0x90, count: most + 1)), .unsupported,
      says: "\(most + 1) bytes",
      "\(most) at most", "mode protected")
  }

  @Test func memoryMustHoldTheImage() throws {
    _ = try plan(halt, ram: 128 << 10)
    expect(
      try refusal(halt, ram: 64 << 10), .memory, says: "0x10000 to 0x1ffff", "(0x0 to 0xffff)",
      "memorySize 128K")
    let large = [UInt8](repeating: 0x90, count: 3 << 20)
    expect(
      try refusal(large, mode: .protected, ram: 2 << 20), .memory, says: "0x10000 to 0x30ffff",
      "memorySize 4M")
  }

  @Test func protectedModeStartsWithFlatSegments() throws {
    let plan = try plan(halt, mode: .protected)
    let entry = plan.entry
    #expect(entry.mode == .protected)
    #expect(entry.instructionPointer == 0x10000 && entry.stackPointer == 0x10000)
    #expect(entry.code.selector == 8 && entry.data.selector == 16)
    for segment in [entry.code, entry.data] {
      #expect(segment.base == 0 && segment.limit == 0xFFFF_FFFF && segment.isGranular)
      #expect(segment.is32Bit && !segment.is64Bit)
    }
    #expect(entry.descriptorTable?.base == 0x500 && entry.descriptorTable?.limit == 23)
    #expect(entry.pageTableRoot == nil)
    // Null; code: limit 0xFFFFF pages, G, D, present, ring 0, type 11; data: type 3.
    #expect(
      try Array(plan.piece("kvmlite's GDT").contents)
        == littleEndian(0, 8) + littleEndian(0x00CF_9B00_0000_FFFF, 8)
        + littleEndian(0x00CF_9300_0000_FFFF, 8))
    #expect(plan.pieces.map(\.start) == [0x500, 0x10000])
  }

  @Test func longModeStartsWith64BitCodeAndPaging() throws {
    let plan = try plan(halt, mode: .long, at: 0x20_0000)
    let entry = plan.entry
    #expect(entry.mode == .long)
    #expect(entry.instructionPointer == 0x20_0000 && entry.stackPointer == 0x10000)
    #expect(entry.code.is64Bit && !entry.code.is32Bit && entry.code.selector == 8)
    #expect(entry.pageTableRoot == 0x1000)
    #expect(plan.pieces.map(\.start) == [0x500, 0x1000, 0x20_0000])
    // As in protected mode, but L instead of D.
    #expect(
      try Array(plan.piece("kvmlite's GDT").contents.dropFirst(8).prefix(8))
        == littleEndian(0x00AF_9B00_0000_FFFF, 8))
  }

  @Test func imageMayNotLieOnWhatKvmlitePutsThere() throws {
    expect(
      try refusal(halt, mode: .protected, at: 0x517), .options, says: "0x517", "kvmlite's GDT",
      "0x500 to 0x517", "loadAddress", "0x10000")
    _ = try plan(halt, mode: .protected, at: 0x518)
    expect(
      try refusal(halt, mode: .long, at: 0x6FFF), .options, says: "page tables", "0x1000 to 0x6fff")
    _ = try plan(halt, mode: .long, at: 0x7000)
    _ = try plan(halt, mode: .protected, at: 0x6FFF)
    expect(
      try refusal(halt, mode: .long, at: 0xFFFF), .options, says: "the first stack",
      "0xff00 to 0xffff")
  }

  @Test func imageMayOnlyGoWhereRAMIsAndTheStartReaches() throws {
    expect(
      try refusal(halt, mode: .protected, at: 0xC000_0000, ram: 8 << 30), .memory,
      says: "no memorySize changes that", "0xc0000000 to 0xffffffff", "0x100000000 to 0x23fffffff")
    expect(
      try refusal(halt, mode: .long, at: 0x1_0000_0000, ram: 8 << 30), .options,
      says: "first 4 GiB")
    expect(
      try refusal(halt, mode: .protected, at: GuestAddress(UInt64.max)), .options, says: "4 GiB")
  }

  @Test func everyVectorOfRealModeReturns() throws {
    for image in [halt, sector] {
      let bytes = try Array(plan(image).piece("the BIOS's vectors and data").contents)
      #expect(bytes.count == 0x500)
      // IRET; services return with an error; the timer, both 8259s.
      for (vector, code): (Int, [UInt8]) in [
        (0x00, [0xCF]), (0x06, [0xCF]), (0x1C, [0xCF]), (0x80, [0xCF]), (0xFF, [0xCF]),
        (0x10, [0x55, 0x89, 0xE5]), (0x13, [0x55, 0x89, 0xE5]), (0x08, [0x50, 0x1E, 0x31, 0xC0]),
        (0x09, [0x50, 0xB0, 0x20, 0xE6, 0x20]), (0x0F, [0x50, 0xB0, 0x20, 0xE6, 0x20]),
        (0x70, [0x50, 0xB0, 0x20, 0xE6, 0xA0]), (0x77, [0x50, 0xB0, 0x20, 0xE6, 0xA0]),
      ] {
        let start = Int(bytes.load(vector * 4, 4))
        #expect(Array(bytes[start..<start + code.count]) == code, "vector \(vector)")
      }
      #expect(bytes.load(0x413, 2) == 639)
    }
    // Other modes have no vectors, and an image keeps what it has there.
    #expect(try plan(halt, mode: .long).pieces.allSatisfy { $0.start.value >= 0x500 })
    #expect(try plan(halt, mode: .real, at: 0x100).pieces.map(\.start) == [0x100])
  }

  @Test func bootSectorStartsAsABIOSStartsIt() throws {
    let plan = try plan(sector)
    #expect(plan.format == .bootSector)
    #expect(plan.pieces.map(\.start) == [0, 0x7C00])
    #expect(plan.pieces.last?.contents == sector[...])
    #expect(plan.entry.mode == .real)
    #expect(plan.entry.code.selector == 0 && plan.entry.code.base == 0)
    #expect(plan.entry.data.selector == 0)
    #expect(plan.entry.instructionPointer == 0x7C00 && plan.entry.stackPointer == 0x7C00)
    #expect(plan.entry.rdx == 0x80)
  }

  @Test func bootSectorTakesNoOtherModeOrPlace() throws {
    _ = try plan(sector, mode: .real)
    expect(
      try refusal(sector, mode: .long), .options, says: "mode long", "a boot sector", "real mode",
      "leave mode out")
    expect(
      try refusal(sector, at: 0x8000), .options, says: "loadAddress 0x8000", "a boot sector",
      "leave loadAddress out")
    expect(try refusal(sector, ram: 16 << 10), .memory, says: "0x7c00", "memorySize 32K")
  }

  @Test func nothingToTellIsAccepted() throws {
    for image in [halt, sector, ELFBuilder().bytes] {
      expect(
        try refusal(image, initrd: [1]), .options, says: "initrds is for Linux", "leave initrds")
      expect(try refusal(image, commandLine: "x"), .options, says: "append is for Linux")
    }
  }

  @Test func piecesAreCopiedIntoMemory() throws {
    let memory = try GuestMemory(ramSize: 4 << 20)
    let plan = try plan([0xF4, 0x90], mode: .long, ram: memory.ramSize)
    try plan.load(into: memory)
    #expect(try memory.read(3, at: 0x10000) == [0xF4, 0x90, 0])
    #expect(try memory.read(24, at: 0x500) == Array(plan.piece("kvmlite's GDT").contents))
  }
}
