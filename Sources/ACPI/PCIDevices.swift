/// The PCI host bridge in AML, and the motherboard resource that its configuration space is.
enum PCIDevices {
  static func terms(_ pci: PlatformDescription.PCI) -> [AML] { [hostBridge(pci), reserved(pci)] }

  /// `PCI0`: a PCI Express host bridge, which says that there is ECAM, and for kernels that know none
  /// a PCI one.
  private static func hostBridge(_ pci: PlatformDescription.PCI) -> AML {
    // ISA's ports are behind it too: an IDE function in compatibility mode claims some of them.
    let isaPorts = 0...pci.configurationPorts - 1
    var resources = ResourceTemplate().buses(0...0).ports(pci.configurationPorts, count: 8)
      .portWindow(isaPorts)
      .portWindow(pci.ports).memoryWindow(pci.memory32)
    if let memory = pci.memory64 { resources = resources.memoryWindow(memory) }
    return .device(
      "PCI0",
      [
        .name("_HID", .eisaID("PNP0A08")), .name("_CID", .eisaID("PNP0A03")),
        .name("_UID", .integer(0)), .name("_BBN", .integer(0)), .name("_SEG", .integer(0)),
        .name("_CRS", resources.term), .name("_PRT", routing(pci)),
      ])
  }

  /// `_PRT`: for each pin of each device its global system interrupt, level-triggered and active low
  /// as PCI's are (ACPI 6.5, 6.2.13). Device 0 is the bridge itself.
  private static func routing(_ pci: PlatformDescription.PCI) -> AML {
    var entries: [AML] = []
    for device in 1..<pci.interrupts.count {
      for (pin, interrupt) in pci.interrupts[device].enumerated() {
        entries.append(
          .package([
            .integer(UInt64(device) << 16 | 0xFFFF), .integer(UInt64(pin)), .integer(0),
            .integer(UInt64(interrupt)),
          ]))
      }
    }
    return .package(entries)
  }

  /// Where kernels look whether ECAM is reserved (PCI Firmware Specification 3.2, 4.1.2).
  private static func reserved(_ pci: PlatformDescription.PCI) -> AML {
    let start = UInt32(truncatingIfNeeded: pci.configuration)
    return .device(
      "RES",
      [
        .name("_HID", .eisaID("PNP0C02")), .name("_UID", .integer(0)),
        .name("_CRS", ResourceTemplate().memory(start, count: 1 << 20).term),
      ])
  }
}
