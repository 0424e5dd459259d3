import Memory

/// boot_params, the page by which a Linux kernel learns how it was started (Linux,
/// Documentation/arch/x86/zero-page.rst and arch/x86/include/uapi/asm/bootparam.h).
struct BootParameters {
  /// The size of struct boot_params.
  static let size = 4096
  /// Where the setup header's place ends.
  static let endOfHeader = 0x290

  private enum Offset {
    static let rsdpAddress = 0x70  // acpi_rsdp_addr
    static let e820Entries = 0x1E8
    static let e820Table = 0x2D0
  }
  private static let mostE820Entries = 128
  private static let e820EntrySize = 20

  private var record = Record(count: size)
  var bytes: [UInt8] { record.bytes }

  /// Parameters with `header`, a kernel's own from setup_sects on, where the kernel has it.
  init(header: ArraySlice<UInt8>) {
    record.copy(header, to: SetupHeader.Offset.setupSects)
    // A loader without a number of its own, so nothing more to say about it.
    record.store(UInt8(0xFF), at: SetupHeader.Offset.typeOfLoader)
    record.store(UInt8(0), at: SetupHeader.Offset.extLoaderVersion)
    record.store(UInt8(0), at: SetupHeader.Offset.extLoaderType)
    // "normal", as if there were no vga= on the command line.
    record.store(UInt16(0xFFFF), at: SetupHeader.Offset.videoMode)
    // A PC, and nothing appended; a file can't know better.
    record.store(UInt32(0), at: SetupHeader.Offset.hardwareSubarch)
    record.store(UInt64(0), at: SetupHeader.Offset.setupData)
    setInitrd(at: 0, size: 0)
  }

  mutating func setLoadAddress(_ address: UInt64) {
    record.store(UInt32(address), at: SetupHeader.Offset.code32Start)
  }

  mutating func setInitrd(at address: UInt64, size: UInt64) {
    record.store(UInt32(address), at: SetupHeader.Offset.ramdiskImage)
    record.store(UInt32(size), at: SetupHeader.Offset.ramdiskSize)
  }

  mutating func setCommandLine(at address: UInt64) {
    record.store(UInt32(address), at: SetupHeader.Offset.cmdLinePointer)
  }

  mutating func setRSDP(at address: GuestAddress) {
    record.store(address.value, at: Offset.rsdpAddress)
  }

  /// Puts down the first 128 entries of `map`, which has far fewer.
  mutating func setMemoryMap(_ map: MemoryMap) {
    let entries = map.entries.prefix(Self.mostE820Entries)
    record.store(UInt8(entries.count), at: Offset.e820Entries)
    for (index, entry) in entries.enumerated() {
      let offset = Offset.e820Table + index * Self.e820EntrySize
      record.store(entry.range.lowerBound, at: offset)
      record.store(entry.range.upperBound - entry.range.lowerBound, at: offset + 8)
      record.store(entry.kind.rawValue, at: offset + 16)
    }
  }
}
