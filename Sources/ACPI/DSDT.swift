/// The Differentiated System Description Table (ACPI 6.5, 5.2.11.1): devices that can't be found by
/// looking for them.
enum DSDT {
  /// As many processors get a device in AML. A kernel finds them all in MADT; the devices are for
  /// what comes after the boot, and there must be an end to the table's growth.
  private static let mostProcessorDevices = 1024

  /// The table, of revision 2: integers have 64 bits.
  static func table(_ platform: PlatformDescription) -> [UInt8] {
    // A device of the system's own is a line here.
    let devices =
      processors(platform.processors.count) + serialPorts(platform.serialPorts)
      + [realTimeClock(platform.realTimeClock)] + virtioDevices(platform.virtioDevices)
      + (platform.generation.map { [GenerationDevice.device($0)] } ?? [])
      + (platform.pci.map(PCIDevices.terms) ?? [])
    let terms =
      [powerOff(platform.powerManagement), AML.scope("_SB", devices)]
      + (platform.generation.map { [GenerationDevice.events($0)] } ?? [])
    return SystemTable.make("DSDT", revision: 2, AML.joined(terms))
  }

  /// `_S5`: what to write to SLP_TYP of PM1a, of PM1b, and two reserved values (7.4.2.6).
  private static func powerOff(_ hardware: PlatformDescription.PowerManagement) -> AML {
    let type = AML.integer(UInt64(hardware.powerOffType))
    return .name("_S5", .package([type, type, .integer(0), .integer(0)]))
  }

  /// Processor devices, `C000` to `C3FF`, whose UIDs are those of MADT (8.4).
  private static func processors(_ count: Int) -> [AML] {
    (0..<min(count, mostProcessorDevices)).map { uid in
      .device(
        "C", uid, digits: 3,
        [.name("_HID", .string("ACPI0007")), .name("_UID", .integer(UInt64(uid)))])
    }
  }

  private static func serialPorts(_ ports: [PlatformDescription.SerialPort]) -> [AML] {
    ports.enumerated().map { index, port in
      let resources = ResourceTemplate().ports(port.port, count: 8).interrupt(port.interrupt)
      return .device(
        "COM", index + 1, digits: 1,
        [
          .name("_HID", .eisaID("PNP0501")), .name("_UID", .integer(UInt64(index + 1))),
          .name("_CRS", resources.term),
        ])
    }
  }

  /// Virtio on the MMIO transport, by the ID that QEMU and Linux use.
  private static func virtioDevices(_ devices: [PlatformDescription.VirtioDevice]) -> [AML] {
    devices.enumerated().map { index, device in
      let resources = ResourceTemplate().memory(device.start, count: device.count)
        .globalInterrupt(device.interrupt)
      return .device(
        "VR", index, digits: 2,
        [
          .name("_HID", .string("LNRO0005")), .name("_UID", .integer(UInt64(index))),
          .name("_CRS", resources.term),
        ])
    }
  }

  /// The clock and its CMOS RAM, with a PC's IRQ 8.
  private static func realTimeClock(_ port: UInt16) -> AML {
    .device(
      "RTC",
      [
        .name("_HID", .eisaID("PNP0B00")),
        .name("_CRS", ResourceTemplate().ports(port, count: 2).interrupt(8).term),
      ])
  }
}
