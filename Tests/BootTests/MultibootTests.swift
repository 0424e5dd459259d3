import Boot
import Memory
import TestSupport
import Testing

@Suite("Multiboot kernels", .limited)
struct MultibootTests {
  @Test(arguments: [true, false])
  func kernelStartsInProtectedMode(is64Bit: Bool) throws {
    let plan = try plan(ELFBuilder.multiboot(is64Bit: is64Bit).bytes)
    #expect(plan.format == .multiboot)
    let entry = plan.entry
    #expect(entry.mode == .protected && entry.instructionPointer == 0x10_000C)
    #expect(entry.rax == 0x2BAD_B002 && entry.flags == 2)
    #expect(entry.rbx == (try plan.piece("the Multiboot information")).start.value)
    #expect(entry.code.is32Bit && entry.pageTableRoot == nil && entry.descriptorTable == nil)
    #expect(
      !plan.pieces.contains { $0.range.overlaps(entry.stackPointer - 4096..<entry.stackPointer) })
  }

  @Test func firstThreePagesAreTheGuests() throws {
    for address in [0x8000, 0x40_0000] as [UInt64] {
      var elf = ELFBuilder.multiboot(flags: 0)
      elf.segments[0].physical = address
      elf.segments[0].memorySize = 0x2_0000
      elf.segments[0].virtual = address
      elf.entry = address + 12
      let plan = try plan(elf.bytes, commandLine: String(repeating: "x", count: 10000))
      // But for what a BIOS leaves there, which they may overwrite.
      let low = plan.pieces.filter { $0.start.value < 0x3000 }
      #expect(low.map(\.what) == ["the BIOS's vectors and data"])
      #expect(plan.entry.stackPointer > 0x3000)
    }
  }

  @Test func everyModuleIsListed() throws {
    let plan = try plan(
      ELFBuilder.multiboot().bytes, initrd: [1, 2, 3], others: [[4], [5, 6]])
    let modules = plan.pieces.filter { $0.what == "the module" }
    #expect(modules.map { Array($0.contents) } == [[1, 2, 3], [4], [5, 6]])
    let piece = try plan.piece("the Multiboot information")
    let info = Array(piece.contents)
    #expect(info.load(20, 4) == 3)
    for (index, module) in modules.enumerated() {
      let entry = Int(info.load(24, 4) - piece.start.value) + index * 16
      #expect(info.load(entry, 4) == module.start.value)
      #expect(info.load(entry + 4, 4) == module.start.value + UInt64(module.contents.count))
      let name = Int(info.load(entry + 8, 4) - piece.start.value)
      #expect(String(decoding: info[name..<name + 6], as: UTF8.self) == "initrd")
    }
  }

  @Test func moduleHasItsArguments() throws {
    let files = [
      BootFile([1], name: "a.mod", arguments: "x=1 y"), BootFile([2], name: "b.mod"),
    ]
    func plan(_ image: [UInt8]) throws(BootError) -> BootPlan {
      try BootPlan(
        image: image, name: "guest", options: BootOptions(initrds: files), layout: .pc,
        ramSize: 128 * mebibyte)
    }
    let piece = try plan(ELFBuilder.multiboot().bytes).piece("the Multiboot information")
    let info = Array(piece.contents)
    let modules = Int(info.load(24, 4) - piece.start.value)
    let names = (0..<2).map { index in
      let name = Int(info.load(modules + index * 16 + 8, 4) - piece.start.value)
      return String(decoding: info[name...].prefix { $0 != 0 }, as: UTF8.self)
    }
    #expect(names == ["a.mod x=1 y", "b.mod"])

    // Nobody else would see them.
    let error = try #require(throws: BootError.self) { _ = try plan(BzImageBuilder().bytes) }
    #expect(error.cause == .options && error.description.contains("'x=1 y'"))
  }

  @Test func informationIsWhole() throws {
    let plan = try plan(
      ELFBuilder.multiboot().bytes, ram: 4 << 30, initrd: [1, 2, 3], commandLine: "a b=c")
    let piece = try plan.piece("the Multiboot information")
    let info = Array(piece.contents)
    func text(_ field: Int) -> String {
      let start = Int(info.load(field, 4) - piece.start.value)
      return String(decoding: info[start...].prefix { $0 != 0 }, as: UTF8.self)
    }
    #expect(info.load(0, 4) == 0x24D)
    #expect(info.load(4, 4) == 639 && info.load(8, 4) == (3 << 20) - 1024)
    #expect(text(16) == "guest a b=c" && text(64) == "kvmlite")
    let module = try plan.piece("the module")
    #expect(module.start.value % 4096 == 0 && module.start == 0x10_1000)
    #expect(info.load(20, 4) == 1)
    let entry = Int(info.load(24, 4) - piece.start.value)
    #expect(info.load(entry, 4) == module.start.value)
    #expect(info.load(entry + 4, 4) == module.start.value + 3)
    #expect(text(entry + 8) == "initrd" && info.load(entry + 12, 4) == 0)
    let map = MemoryMap(ramSize: 4 << 30, reserved: BootLayout.pc.reserved).entries
    #expect(info.load(44, 4) == UInt64(map.count * 24))
    for (index, range) in map.enumerated() {
      let offset = Int(info.load(48, 4) - piece.start.value) + index * 24
      #expect(info.load(offset, 4) == 20 && info.load(offset + 4, 8) == range.range.lowerBound)
      #expect(
        info.load(offset + 12, 8) == range.range.upperBound - range.range.lowerBound)
      #expect(info.load(offset + 20, 4) == UInt64(range.kind.rawValue))
    }
  }

  @Test func withoutModuleAndArgumentsTheyAreEmpty() throws {
    let piece = try plan(ELFBuilder.multiboot().bytes).piece("the Multiboot information")
    let info = Array(piece.contents)
    #expect(info.load(20, 4) == 0 && info.load(8, 4) == (127 << 10))
    let line = Int(info.load(16, 4) - piece.start.value)
    #expect(Array(info[line...]) == Array("guest\0".utf8))
  }

  @Test func biosDataAreaSaysHowMuchLowMemoryThereIs() throws {
    let elf = ELFBuilder.multiboot()
    let area = try plan(elf.bytes).piece("the BIOS's vectors and data")
    #expect(area.range == 0..<0x500)
    let bytes = Array(area.contents)
    #expect(bytes.load(0x40E, 2) == 0x9FC0 && bytes.load(0x413, 2) == 639)
    // INT 15h leads to an instruction, the last of which is IRET.
    #expect(bytes.load(0x15 * 4, 4) == 0x4F0 && bytes[0x4F8] == 0xCF)
    // The timer's interrupt may come while the kernel is in real mode, as Xen is.
    #expect((0..<256).allSatisfy { bytes.load($0 * 4, 4) > 0 })
    // A kernel that has something of its own there keeps it.
    var low = elf
    low.segments.append(.init(physical: 0x4FF))
    #expect(try !plan(low.bytes).pieces.contains { $0.what.hasPrefix("the BIOS") })
    var lowest = elf
    lowest.segments.append(.init(physical: 0x3F))
    #expect(try plan(lowest.bytes).piece("the BIOS data area").range == 0x40..<0x500)
  }

  /// `ld -m elf_i386 -Ttext=0x100000` makes a segment of the headers alone, a page before the text.
  @Test(arguments: [
    // p_align 0x1000: nothing else is there.
    (0xF_F000, 0xE_0000, 0xF_C000),
    // Others, and a kernel that has something of its own at each table's place.
    (0xF_0000, 0xE_0000, 0xF_C000), (0xE_0000, 0xE_00C0, 0xF_C000), (0xF_DFFF, 0xE_0000, 0xF_0000),
  ])
  func tablesMoveOutOfTheWay(headers: UInt64, acpi: UInt64, mp: UInt64) throws {
    var elf = ELFBuilder.multiboot()
    elf.segments.append(.init(physical: headers, contents: [UInt8](repeating: 1, count: 0x94)))
    let plan = try plan(elf.bytes, tables: .pc)
    #expect(plan.pieces.contains { $0.start.value == headers && $0.size == 0x94 })
    let tables = try #require(plan.tables)
    #expect(tables.acpi == acpi..<acpi + UInt64(FirmwareRoom.pc.acpi.count))
    #expect(tables.mp == mp..<mp + UInt64(FirmwareRoom.pc.mp.count))
    // Without room there are none, and the kernel starts all the same.
    elf.segments.append(.init(physical: 0xE_0100, contents: [], memorySize: 0xE000))
    elf.segments.append(.init(physical: 0xF_0100, contents: [], memorySize: 0xDEFF))
    elf.segments.append(.init(physical: 0xF_F100, contents: [], memorySize: 0xF00))
    #expect(try BootTests.plan(elf.bytes, tables: .pc).tables == nil)
  }

  @Test func moduleGoesBehindTheKernel() throws {
    var elf = ELFBuilder.multiboot()
    elf.segments.append(.init(physical: 0x40_0000, contents: [], memorySize: 0x1801))
    let initrd = [UInt8](repeating: 1, count: 0x2000)
    #expect(try plan(elf.bytes, initrd: initrd).piece("the module").start == 0x40_2000)
    let error = try refusal(elf.bytes, ram: 0x40_3000, initrd: initrd)
    #expect(error.cause == .memory && error.description.hasSuffix("memorySize 5M"))
  }

  @Test func headersAddressesCountWhereItHasThem() throws {
    // header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr
    func bytes(_ addresses: [UInt32], flags: UInt32 = 0x1_0000) -> [UInt8] {
      [UInt8](repeating: 0x90, count: 16) + multibootHeader(flags: flags, addresses: addresses)
        + [UInt8](repeating: 0xF4, count: 16)
    }
    let sound = try plan(bytes([0x20_0010, 0x20_0000, 0x20_0038, 0x20_1000, 0x20_0004]))
    #expect(sound.format == .multiboot && sound.entry.instructionPointer == 0x20_0004)
    #expect(try sound.piece("the image").range == 0x20_0000..<0x20_1000)
    #expect(try sound.piece("the image").contents.count == 0x38)
    // 0 is for all of the file, and for no zeros behind it; the start of the file may be left out.
    let rest = try plan(bytes([0x20_0010, 0x20_0008, 0, 0, 0x20_0008])).piece("the image")
    #expect(rest.range == 0x20_0008..<0x20_0040 && rest.contents.count == 0x38)

    let lies: [[UInt32]] = [
      [0x1F_FFFF, 0x20_0000, 0, 0, 0x20_0000], [0x20_0011, 0x20_0000, 0, 0, 0x20_0000],
      [0x20_0010, 0x20_0000, 0x20_0041, 0, 0x20_0000], [0x20_0010, 0x20_0000, 1, 0, 0x20_0000],
      [0x20_0010, 0x20_0000, 0x20_0000, 0, 0x20_0000],
      [0x20_0010, 0x20_0000, 0, 0x20_003F, 0x20_0000], [0x20_0010, 0x20_0000, 0, 0, 0x1F_FFFF],
      [0x20_0010, 0x20_0000, 0, 0, 0x20_0040], [0x20_0010, 0x20_0000, 0, 0, 0xFFFF_FFFF],
    ]
    for lie in lies { expect(try refusal(bytes(lie)), .malformed, says: "the file is damaged") }
    expect(
      try refusal(Array(bytes([1, 2, 3, 4, 5]).prefix(44))), .malformed,
      says: "ends within its Multiboot header")
    expect(
      try refusal(bytes([0xFFFF_FFF0, 0xFFFF_FFE0, 0, 0xFFFF_FFFF, 0xFFFF_FFE0])), .malformed,
      says: "damaged")
    expect(try refusal(bytes([], flags: 0)), .malformed, says: "no ELF file", "flag 16")
  }

  @Test func whatItAsksForAndWeLackIsNamed() throws {
    expect(
      try refusal(ELFBuilder.multiboot(flags: 7).bytes), .unsupported, says: "video mode",
      "flag 2", "serial console")
    expect(
      try refusal(ELFBuilder.multiboot(flags: 0x8003).bytes), .unsupported, says: "0x8000")
    // The high flags are for the image's own use.
    _ = try plan(ELFBuilder.multiboot(flags: 0xFFFE_0003).bytes)
  }

  @Test func multibootComesBeforePVHOnlyIn32Bits() throws {
    for is64Bit in [true, false] {
      var elf = ELFBuilder.multiboot(is64Bit: is64Bit)
      elf.segments.append(.init(type: 4, contents: note("Xen", 18, littleEndian(0x10_000C, 4))))
      #expect(try plan(elf.bytes).format == (is64Bit ? .pvh : .multiboot))
    }
  }

  @Test func informationNeedsLowMemory() throws {
    var elf = ELFBuilder.multiboot()
    elf.segments.append(.init(physical: 0x1000, contents: [], memorySize: 0x9_E800))
    expect(try refusal(elf.bytes), .memory, says: "the first stack", "above 1 MiB")
  }
}
