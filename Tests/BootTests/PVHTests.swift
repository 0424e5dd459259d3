import Boot
import Memory
import TestSupport
import Testing

@Suite("PVH kernels and unpacked Linux kernels", .limited)
struct PVHTests {
  @Test(arguments: [true, false])
  func kernelStartsWhereItsNoteSays(is64Bit: Bool) throws {
    let plan = try plan(ELFBuilder.pvh(is64Bit: is64Bit).bytes)
    #expect(plan.format == .pvh)
    let entry = plan.entry
    #expect(entry.mode == .protected && entry.instructionPointer == 0x10_0000)
    #expect(entry.code.is32Bit && entry.code.limit == 0xFFFF_FFFF && entry.data.base == 0)
    #expect(entry.pageTableRoot == nil && entry.descriptorTable == nil)
    #expect(entry.rbx == (try plan.piece("the start info")).start.value && entry.flags == 2)
    // The first stack is in RAM and nothing is on it.
    #expect(
      !plan.pieces.contains { $0.range.overlaps(entry.stackPointer - 4096..<entry.stackPointer) })
  }

  @Test func startInfoLeadsToAllThereIs() throws {
    let plan = try plan(
      ELFBuilder.pvh().bytes, ram: 4 << 30, initrd: [1, 2, 3], commandLine: "a=b", tables: .pc)
    let piece = try plan.piece("the start info")
    let info = Array(piece.contents)
    #expect(info.load(0, 4) == 0x336E_C578 && info.load(4, 4) == 1 && info.load(8, 4) == 0)
    let line = try plan.piece("the command line")
    #expect(info.load(24, 8) == line.start.value && Array(line.contents) == Array("a=b\0".utf8))
    #expect(info.load(32, 8) == 0xE_0000)
    let initrd = try plan.piece("the initrd")
    #expect(info.load(12, 4) == 1 && initrd.start == 0xBFFF_F000)
    let module = Int(info.load(16, 8) - piece.start.value)
    #expect(info.load(module, 8) == initrd.start.value && info.load(module + 8, 8) == 3)
    let map = MemoryMap(ramSize: 4 << 30, reserved: BootLayout.pc.reserved).entries
    let first = Int(info.load(40, 8) - piece.start.value)
    #expect(info.load(48, 4) == UInt64(map.count) && info.count == first + map.count * 24)
    for (index, entry) in map.enumerated() {
      #expect(info.load(first + index * 24, 8) == entry.range.lowerBound)
      #expect(
        info.load(first + index * 24 + 8, 8) == entry.range.upperBound - entry.range.lowerBound)
      #expect(info.load(first + index * 24 + 16, 4) == UInt64(entry.kind.rawValue))
    }
  }

  @Test func nothingToTellIsTold() throws {
    let info = try Array(plan(ELFBuilder.pvh().bytes).piece("the start info").contents)
    #expect(info.load(12, 4) == 0 && info.load(16, 8) == 0 && info.load(32, 8) == 0)
  }

  @Test func noteMustHoldAnAddressInside() throws {
    _ = try plan(ELFBuilder.pvh(entry: littleEndian(0x10_0000, 8)).bytes)
    for entry in [0, 0xF_FFFF, 0x10_0001, 0x1_0010_0000, UInt64.max] {
      expect(
        try refusal(ELFBuilder.pvh(entry: littleEndian(entry, 8)).bytes), .malformed,
        says: "PVH note", "0x" + String(entry, radix: 16))
    }
    expect(
      try refusal(ELFBuilder.pvh(entry: [1, 2]).bytes), .malformed, says: "PVH note", "2 bytes")
  }

  @Test func commandLineAndInitrdMustFit() throws {
    let elf = ELFBuilder.pvh()
    expect(
      try refusal(elf.bytes, commandLine: String(repeating: "x", count: 640 << 10)), .memory,
      says: "the command line needs 655361 bytes")
    let error = try refusal(elf.bytes, ram: 2 << 20, initrd: [UInt8](repeating: 1, count: 1 << 20))
    #expect(error.description.hasPrefix("initrd") && error.description.hasSuffix("memorySize 3M"))
  }

  @Test func unpackedLinuxGetsBootParameters() throws {
    let plan = try plan(ELFBuilder.vmlinux.bytes, initrd: [7], commandLine: "quiet")
    #expect(plan.format == .vmlinux && plan.format.isLinux)
    let entry = plan.entry
    #expect(entry.mode == .long && entry.instructionPointer == 0x100_0000)
    #expect(entry.code.selector == 0x10 && entry.data.selector == 0x18)
    let page = try plan.piece("boot_params")
    #expect(entry.rsi == page.start.value)
    let bytes = Array(page.contents)
    #expect(bytes.load(0x1FE, 2) == 0xAA55 && bytes.load(0x202, 4) == 0x5372_6448)
    #expect(bytes.load(0x206, 2) == 0x20F && bytes.load(0x210, 1) == 0xFF)
    #expect(bytes.load(0x218, 4) == (try plan.piece("the initrd")).start.value)
    #expect(bytes.load(0x228, 4) == (try plan.piece("the command line")).start.value)
    #expect(bytes.load(0x1E8, 1) == 4)
    expect(
      try refusal(ELFBuilder.vmlinux.bytes, commandLine: String(repeating: "x", count: 2048)),
      .unsupported, says: "2047 at most")
  }

  @Test func pvhNoteComesBeforeLinuxs() throws {
    var elf = ELFBuilder.vmlinux
    elf.segments[1].contents += note("Xen", 18, littleEndian(0x100_0000, 8))
    #expect(try plan(elf.bytes).format == .pvh)
  }
}
