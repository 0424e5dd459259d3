import Boot
import Memory
import TestSupport
import Testing

@Suite("Linux kernels (bzImage)", .limited)
struct BzImageTests {
  @Test func kernelStartsByThe64BitProtocol() throws {
    let plan = try plan(BzImageBuilder().bytes)
    #expect(plan.format == .bzImage)
    let kernel = try plan.piece("the kernel")
    // At pref_address, with init_size bytes to itself.
    #expect(kernel.range == 0x100_0000..<0x200_0000 && kernel.contents.count == 0x1000)
    let entry = plan.entry
    #expect(entry.mode == .long && entry.instructionPointer == 0x100_0200 && entry.flags == 2)
    #expect(entry.code.selector == 0x10 && entry.code.is64Bit && entry.data.selector == 0x18)
    #expect(entry.pageTableRoot == 0x1000)
    #expect(entry.descriptorTable?.base == 0x500 && entry.descriptorTable?.limit == 31)
    #expect(
      try Array(plan.piece("kvmlite's GDT").contents)
        == littleEndian(0, 16) + littleEndian(0x00AF_9B00_0000_FFFF, 8)
        + littleEndian(0x00CF_9300_0000_FFFF, 8))
    #expect(entry.rsi == (try plan.piece("boot_params")).start.value)
    #expect(entry.rsi % 4096 == 0)
  }

  @Test func kernelWithoutThatEntryStartsByThe32BitProtocol() throws {
    // As memtest86+ has it.
    let header = BzImageBuilder(
      version: 0x20C, setupSects: 2, jump: 0x66, alignment: 0x1000, relocatable: 0,
      xloadflags: 4, cmdlineSize: 255, prefAddress: 0x10_0000, initSize: 0x6_87F8)
    let plan = try plan(header.bytes)
    #expect(try plan.piece("the kernel").range == 0x10_0000..<0x16_87F8)
    let entry = plan.entry
    #expect(entry.mode == .protected && entry.instructionPointer == 0x10_0000)
    #expect(entry.code.selector == 0x10 && entry.code.is32Bit && entry.data.selector == 0x18)
    #expect(entry.pageTableRoot == nil)
    #expect(entry.rsi == (try plan.piece("boot_params")).start.value)
    #expect([entry.rbx, entry.rbp, entry.rdi] == [0, 0, 0])
  }

  @Test func kernelIsLoadedWhereItWantsToRun() throws {
    var header = BzImageBuilder(alignment: 0x40_0000, prefAddress: 0x100_1000)
    #expect(try plan(header.bytes).piece("the kernel").start == 0x140_0000)
    header.prefAddress = 0
    #expect(try plan(header.bytes).piece("the kernel").start == 0x40_0000)
    // One that can't be moved is loaded at 1 MiB, and moves itself to where it runs.
    header = BzImageBuilder(relocatable: 0, prefAddress: 0x20_0000, initSize: 0x30_0000)
    #expect(try plan(header.bytes).piece("the kernel").range == 0x10_0000..<0x50_0000)
    // Before protocol 2.10 no kernel says so.
    header = BzImageBuilder(version: 0x209, jump: 0x3A)
    #expect(try plan(header.bytes).piece("the kernel").range == 0x20_0000..<0x20_1000)
    #expect(try plan(header.bytes).entry.mode == .protected)
  }

  @Test func kernelIsAsLongAsItSays() throws {
    var header = BzImageBuilder(rest: [1, 2, 3])
    #expect(try plan(header.bytes).piece("the kernel").contents.count == 0x1000)
    // The last paragraph isn't always whole, and 0 says nothing.
    header = BzImageBuilder(syssize: 0x101, rest: [1])
    #expect(try plan(header.bytes).piece("the kernel").contents.count == 0x1001)
    header.syssize = 0
    #expect(try plan(header.bytes).piece("the kernel").contents.count == 0x1001)
    // 0 sectors are 4, as old kernels mean.
    header.setupSects = 0
    #expect(try plan(header.bytes).piece("the kernel").contents.count == 0x1001)
  }

  @Test func severalInitrdsBecomeOne() throws {
    let plan = try plan(BzImageBuilder().bytes, initrd: [1, 2, 3], others: [[4], [5, 6]])
    let initrd = try plan.piece("the initrd")
    #expect(Array(initrd.contents) == [1, 2, 3, 0, 4, 0, 0, 0, 5, 6])
    let page = try Array(plan.piece("boot_params").contents)
    #expect(page.load(0x218, 4) == initrd.start.value && page.load(0x21C, 4) == 10)
  }

  @Test func bootParametersHoldTheHeaderAndWhatTheLoaderSays() throws {
    let header = BzImageBuilder()
    let plan = try plan(
      header.bytes, initrd: [1, 2, 3], commandLine: "console=ttyS0", tables: .pc)
    let page = try Array(plan.piece("boot_params").contents)
    #expect(page.count == 4096)
    #expect(page.load(0x206, 2) == 0x20F && page.load(0x1FE, 2) == 0xAA55)
    #expect(page.load(0x236, 2) == 0x7F && page.load(0x1F1, 1) == 39)
    // Nothing before the header and nothing behind it: the kernel takes a sentinel at 0x1EF for a
    // sign of a loader that left rubbish.
    #expect(page.load(0x1EF, 1) == 0 && page.load(0x26C, 4) == 0)
    #expect(page.load(0x210, 1) == 0xFF && page.load(0x211, 1) == 1)
    #expect(page.load(0x226, 2) == 0 && page.load(0x1FA, 2) == 0xFFFF)
    #expect(page.load(0x214, 4) == 0x100_0000 && page.load(0x250, 8) == 0)
    #expect(page.load(0x70, 8) == 0xE_0000)
    let line = try plan.piece("the command line")
    #expect(page.load(0x228, 4) == line.start.value)
    #expect(Array(line.contents) == Array("console=ttyS0".utf8) + [0])
    let initrd = try plan.piece("the initrd")
    #expect(page.load(0x218, 4) == initrd.start.value && page.load(0x21C, 4) == 3)
    #expect(initrd.start == 0x7FF_F000 && Array(initrd.contents) == [1, 2, 3])
  }

  @Test func memoryMapIsInBootParameters() throws {
    let plan = try plan(BzImageBuilder().bytes, ram: 4 << 30)
    let page = try Array(plan.piece("boot_params").contents)
    let map = MemoryMap(ramSize: 4 << 30, reserved: BootLayout.pc.reserved).entries
    #expect(page.load(0x1E8, 1) == UInt64(map.count) && map.count == 5)
    for (index, entry) in map.enumerated() {
      let offset = 0x2D0 + index * 20
      #expect(page.load(offset, 8) == entry.range.lowerBound)
      #expect(page.load(offset + 8, 8) == entry.range.upperBound - entry.range.lowerBound)
      #expect(page.load(offset + 16, 4) == UInt64(entry.kind.rawValue))
    }
  }

  @Test func tablesMoveOutOfTheKernelsWay() throws {
    var header = BzImageBuilder(relocatable: 0, prefAddress: 0xE_8000)
    // The MP tables' place is taken, and there is no other for them.
    #expect(try plan(header.bytes, tables: .pc).tables == nil)
    header.prefAddress = 0x10_0000
    #expect(try plan(header.bytes, tables: .pc).tables == .pc)
    // What it needs between its place and where it was loaded, too.
    header.prefAddress = 0xF_F000
    #expect(try plan(header.bytes, tables: .pc).tables == .pc)
    header.prefAddress = 0xF_D000
    let moved = try plan(header.bytes, tables: .pc)
    #expect(moved.tables == FirmwareRoom(acpi: FirmwareRoom.pc.acpi, mp: 0xF_0000..<0xF_2000))
    #expect(try Array(moved.piece("boot_params").contents).load(0x70, 8) == 0xE_0000)
  }

  // MARK: The initrd

  @Test func initrdGoesAsHighAsTheKernelAllows() throws {
    func start(_ header: BzImageBuilder, ram: UInt64) throws -> GuestAddress {
      try plan(header.bytes, ram: ram, initrd: [UInt8](repeating: 7, count: 0x1001))
        .piece("the initrd").start
    }
    var header = BzImageBuilder()
    #expect(try start(header, ram: 64 << 20) == 0x3FF_E000)
    #expect(try start(header, ram: 8 << 30) == 0x7FFF_E000)
    header.initrdAddressMax = 0xFFFF_FFFF
    #expect(try start(header, ram: 8 << 30) == 0xBFFF_E000)
    header.initrdAddressMax = 0x37FF_FFFF
    #expect(try start(header, ram: 8 << 30) == 0x37FF_E000)
    // Below a kernel that leaves no room above.
    header = BzImageBuilder(prefAddress: 0x200_0000, initSize: 0x200_0000)
    #expect(try start(header, ram: 64 << 20) == 0x1FF_E000)
  }

  @Test func initrdMustFit() throws {
    let header = BzImageBuilder(relocatable: 0, prefAddress: 0x10_0000, initSize: 0x100_0000)
    let initrd = [UInt8](repeating: 7, count: 1 << 20)
    _ = try plan(header.bytes, ram: 18 << 20, initrd: initrd)
    let error = try refusal(header.bytes, ram: 17 << 20, initrd: initrd)
    #expect(error.cause == .memory)
    #expect(
      error.description.hasPrefix("initrd has 1048576 bytes")
        && error.description.hasSuffix("memorySize 18M")
    )
    var low = header
    low.initrdAddressMax = 0x117_FFFF
    let other = try refusal(low.bytes, initrd: initrd)
    #expect(other.description.contains("takes none above 0x1180000"))
    low.initrdAddressMax = 0
    #expect(try refusal(low.bytes, initrd: initrd).cause == .memory)
    #expect(try refusal(header.bytes, initrd: []).description.hasPrefix("initrd is empty"))
  }

  // MARK: The command line

  @Test func commandLineIsAsLongAsTheKernelTakes() throws {
    let header = BzImageBuilder(cmdlineSize: 5)
    _ = try plan(header.bytes, commandLine: "quiet")
    expect(
      try refusal(header.bytes, commandLine: "quiet1"), .unsupported, says: "6 bytes", "5 at most",
      "append")
    expect(try refusal(header.bytes, commandLine: "a\0b"), .options, says: "zero byte")
    let long = BzImageBuilder(cmdlineSize: 0xFFFF_FFFF)
    expect(
      try refusal(long.bytes, commandLine: String(repeating: "x", count: 1 << 20)), .memory,
      says: "the command line needs 1048577 bytes")
  }

  // MARK: What is refused

  @Test func oldKernelsAreNamed() throws {
    expect(
      try refusal(BzImageBuilder(version: 0x205).bytes), .unsupported, says: "boot protocol 2.05",
      "2.06", "Linux 2.6.22")
    expect(try refusal(BzImageBuilder(loadflags: 0).bytes), .unsupported, says: "zImage", "bzImage")
    expect(
      try refusal(BzImageBuilder(code32Start: 0).bytes), .unsupported, says: "BIOS", "firmware")
  }

  @Test func truncationsAreRefused() throws {
    let bytes = BzImageBuilder(setupSects: 1, kernel: [UInt8](repeating: 1, count: 0x400)).bytes
    #expect(bytes.count == 0x800)
    _ = try plan(bytes)
    // With less than 0x206 bytes there is nothing to tell that it is a kernel.
    for count in [0x206, 0x207, 0x260, 0x26B, 0x26C, 0x400, 0x401, 0x7F0] {
      expect(try refusal(Array(bytes.prefix(count))), .malformed, says: "cut short")
    }
    // As short as the last paragraph may be.
    _ = try plan(Array(bytes.prefix(0x7F1)))
    let short = BzImageBuilder(kernel: [UInt8](repeating: 1, count: 0x200))
    expect(try refusal(short.bytes), .malformed, says: "64-bit entry point", "cut short")
  }

  @Test func headerMustHoldItsVersionsFields() throws {
    expect(
      try refusal(BzImageBuilder(jump: 0x61).bytes), .malformed, says: "ends at 0x263", "2.15",
      "0x264")
    _ = try plan(BzImageBuilder(jump: 0x62).bytes)
    expect(
      try refusal(BzImageBuilder(version: 0x206, jump: 0x39).bytes), .malformed, says: "0x23c")
    // What a longer header has beyond its place in boot_params stays out.
    let page = try Array(plan(BzImageBuilder(jump: 0xFF).bytes).piece("boot_params").contents)
    #expect(page.load(0x28F, 1) == 0xCC && page.load(0x290, 1) == 0)
  }

  @Test func addressesThatLieAreRefused() throws {
    for alignment in [0, 3, 0xFFFF_FFFF] as [UInt32] {
      expect(
        try refusal(BzImageBuilder(alignment: alignment).bytes), .malformed,
        says: "kernel_alignment", "power of two")
    }
    for address in [1 << 32, UInt64.max, 0xFFFF_F000] {
      expect(
        try refusal(BzImageBuilder(alignment: 1 << 31, prefAddress: address).bytes), .unsupported,
        says: "pref_address")
    }
    expect(
      try refusal(BzImageBuilder(initSize: 0xFFFF_FFFF).bytes, ram: 8 << 30), .memory,
      says: "init_size")
    expect(
      try refusal(BzImageBuilder(relocatable: 0, prefAddress: UInt64.max).bytes), .memory,
      says: "init_size", "pref_address")
    expect(
      try refusal(BzImageBuilder(relocatable: 0, prefAddress: 0).bytes), .malformed,
      says: "the kernel's memory", "kvmlite's GDT")
    expect(
      try refusal(BzImageBuilder(initSize: 0x800_0000).bytes), .memory, says: "the kernel",
      "memorySize 144M")
    expect(
      try refusal(BzImageBuilder().bytes, mode: .real), .options, says: "mode real",
      "a Linux kernel (bzImage)")
  }
}
