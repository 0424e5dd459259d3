extension BootPlan {
  /// A Linux kernel as the linker made it, before it was packed into a bzImage.
  ///
  /// Its entry point is what the unpacking code in a bzImage jumps to, with what it was told itself:
  /// in the state of the 32-bit or 64-bit boot protocol, with boot_params in ESI or RSI (Linux,
  /// arch/x86/kernel/head_64.S, startup_64). It has no setup header, so the loader makes one.
  static func vmlinux(_ request: BootRequest) throws(BootError) -> BootPlan {
    let elf = try ELF(request.image)
    let mode: CPUMode = elf.is64Bit ? .long : .protected
    try request.requireOwn(mode: mode)
    var placement = Placement(
      request, overlap: .malformed, remedy: "build it for a higher address (PHYSICAL_START)")
    let segments = try elf.loadableSegments(of: request.image)
    let entry = try elf.physicalEntry(in: segments, request.image)
    try placement.place(segments)
    let linux = LinuxEntry(
      request: request, mode: mode, longestCommandLine: longestCommandLine,
      initrdAddressMax: initrdAddressMax)
    return try linux.plan(placement, BootParameters(header: setupHeader), at: entry)
  }

  /// COMMAND_LINE_SIZE, less the zero at the end (Linux, arch/x86/include/asm/setup.h).
  private static let longestCommandLine: UInt64 = 2047
  /// The value of initrd_addr_max in every bzImage (Linux, arch/x86/boot/header.S).
  private static let initrdAddressMax: UInt64 = 0x7FFF_FFFF

  /// The fields of a setup header that a kernel reads, rather than its loader.
  private static var setupHeader: ArraySlice<UInt8> {
    var record = Record(count: SetupHeader.Offset.initSize + 4)
    record.store(UInt16(0xAA55), at: SetupHeader.Offset.bootFlag)
    record.copy(Array("HdrS".utf8)[...], to: SetupHeader.Offset.header)
    record.store(UInt16(0x20F), at: SetupHeader.Offset.version)
    record.store(UInt8(1), at: SetupHeader.Offset.loadflags)
    record.store(UInt32(initrdAddressMax), at: SetupHeader.Offset.initrdAddressMax)
    record.store(UInt32(longestCommandLine), at: SetupHeader.Offset.cmdlineSize)
    return record.bytes[SetupHeader.Offset.setupSects...]
  }
}
