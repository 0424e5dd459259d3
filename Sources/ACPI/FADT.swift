/// The Fixed ACPI Description Table of revision 6.5 (ACPI 6.5, 5.2.9): the fixed hardware.
enum FADT {
  private static let size = 276

  /// Table 5.9. SMI_CMD isn't here and stays 0: the machine has no System Management Mode, and is in
  /// ACPI mode for good.
  private enum Offset {
    static let firmwareControl = 36
    static let dsdt = 40
    static let interrupt = 46
    static let event = 56
    static let control = 64
    static let timer = 76
    static let gpe0 = 80
    static let eventLength = 88
    static let controlLength = 89
    static let timerLength = 91
    static let gpe0Length = 92
    static let c2Latency = 96
    static let c3Latency = 98
    static let century = 108
    static let bootArchitecture = 109
    static let flags = 112
    static let resetRegister = 116
    static let resetValue = 128
    static let minorVersion = 131
    static let extendedDSDT = 140
    static let extendedEvent = 148
    static let extendedControl = 172
    static let extendedTimer = 208
    static let extendedGPE0 = 220
    static let hypervisor = 268
  }

  /// Table 5.10, Fixed ACPI Description Table Fixed Feature Flags.
  private struct Flags: OptionSet {
    let rawValue: UInt32
    static let wbinvd = Self(rawValue: 1 << 0)
    static let procC1 = Self(rawValue: 1 << 2)
    // There is no sleep button. The power button, whose flag is clear, is PM1's.
    static let noFixedSleepButton = Self(rawValue: 1 << 5)
    // The clock's alarm doesn't show in PM1.
    static let noFixedRTC = Self(rawValue: 1 << 6)
    static let resetRegisterSupported = Self(rawValue: 1 << 10)
    static let headless = Self(rawValue: 1 << 12)
  }

  /// Table 5.11, IA-PC Boot Architecture Flags.
  ///
  /// The keyboard controller isn't named, though its reset command works: there is no keyboard, and
  /// the search for one is a good part of the exits of a Linux boot.
  private struct BootArchitecture: OptionSet {
    let rawValue: UInt16
    static let legacyDevices = Self(rawValue: 1 << 0)
    static let vgaNotPresent = Self(rawValue: 1 << 2)
  }

  /// Where the addresses of FACS and DSDT are.
  static let pointers: [ACPITables.Pointer] = [
    .init(offset: Offset.firmwareControl, width: 4), .init(offset: Offset.dsdt, width: 4),
    .init(offset: Offset.extendedDSDT, width: 8),
  ]

  /// The table, with FACS and DSDT at those addresses.
  static func table(_ platform: PlatformDescription, facs: UInt32, dsdt: UInt32) -> [UInt8] {
    var table = [UInt8](repeating: 0, count: size)
    table.store(facs, at: Offset.firmwareControl)
    table.store(dsdt, at: Offset.dsdt)
    table.store(UInt64(dsdt), at: Offset.extendedDSDT)
    storeHardware(platform.powerManagement, in: &table)
    if let events = platform.generalPurposeEvents {
      table.store(UInt32(events), at: Offset.gpe0)
      table[Offset.gpe0Length] = 4
      store(port: events, width: 32, at: Offset.extendedGPE0, in: &table)
    }
    // Latencies over 100 and 1000 us say that there is neither C2 nor C3.
    table.store(UInt16(0xFFFF), at: Offset.c2Latency)
    table.store(UInt16(0xFFFF), at: Offset.c3Latency)
    table[Offset.century] = 0x32
    let architecture: BootArchitecture = [.legacyDevices, .vgaNotPresent]
    table.store(architecture.rawValue, at: Offset.bootArchitecture)
    let flags: Flags = [
      .wbinvd, .procC1, .noFixedSleepButton, .noFixedRTC, .resetRegisterSupported, .headless,
    ]
    table.store(flags.rawValue, at: Offset.flags)
    store(port: platform.reset.port, width: 8, at: Offset.resetRegister, in: &table)
    table[Offset.resetValue] = platform.reset.value
    table[Offset.minorVersion] = 5
    table.replaceSubrange(Offset.hypervisor..<Offset.hypervisor + 7, with: "KVMLITE".utf8)
    return SystemTable.make("FACP", revision: 6, Array(table[SystemTable.headerSize...]))
  }

  private static func storeHardware(
    _ hardware: PlatformDescription.PowerManagement, in table: inout [UInt8]
  ) {
    table.store(hardware.interrupt, at: Offset.interrupt)
    table.store(UInt32(hardware.event), at: Offset.event)
    table.store(UInt32(hardware.control), at: Offset.control)
    table.store(UInt32(hardware.timer), at: Offset.timer)
    (table[Offset.eventLength], table[Offset.controlLength]) = (4, 2)
    table[Offset.timerLength] = 4
    store(port: hardware.event, width: 32, at: Offset.extendedEvent, in: &table)
    store(port: hardware.control, width: 16, at: Offset.extendedControl, in: &table)
    store(port: hardware.timer, width: 32, at: Offset.extendedTimer, in: &table)
  }

  /// Stores a Generic Address Structure for a port of `width` bits (5.2.3.2).
  private static func store(port: UInt16, width: UInt8, at offset: Int, in table: inout [UInt8]) {
    table[offset] = 1  // Address Space ID: System I/O
    table[offset + 1] = width
    // Access Size: 1 byte, 2, 4 are 1, 2, 3. PM1's event block and GPE0's are two registers of 16 bits;
    // those of GPE0 are accessed by bytes (4.8.4.1.1).
    table[offset + 3] =
      width == 8 || offset == Offset.extendedGPE0 ? 1 : offset == Offset.extendedTimer ? 3 : 2
    table.store(UInt64(port), at: offset + 4)
  }
}
