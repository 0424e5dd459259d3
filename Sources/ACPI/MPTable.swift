import Memory

/// The tables of the Intel MultiProcessor Specification 1.4, for kernels that know no ACPI.
///
/// The floating pointer comes first and the configuration table behind it. A kernel looks for the
/// pointer in the BIOS's ROM from 0xF0000 to 0xFFFFF on 16-byte boundaries, among other places (4).
package struct MPTable: Sendable {
  /// Where the bytes go, and where the floating pointer is.
  package let start: GuestAddress
  /// Pointer and table.
  package let bytes: [UInt8]

  private static let pointerSize = 16
  private static let headerSize = 44
  // A PCI bus has the number that it has in configuration addresses.
  private static let pciBus: UInt8 = 0
  private static let isaBus: UInt8 = 1
  // The version register of an integrated APIC: KVM's says so.
  private static let localAPICVersion: UInt8 = 0x14
  private static let ioapicVersion: UInt8 = 0x11
  // An ID of 8 bits has room for so many; the last stands for all.
  private static let allLocalAPICs: UInt8 = 0xFF

  /// Table 4-3, Base MP Configuration Table Entry Types.
  private enum Entry: UInt8 {
    case processor = 0
    case bus = 1
    case ioapic = 2
    case ioInterrupt = 3
    case localInterrupt = 4
  }

  /// Table 4-9, Interrupt Type Values.
  private enum InterruptType: UInt8 {
    case vectored = 0
    case nmi = 1
    case extINT = 3
  }

  /// The tables of `platform` for `start`, a multiple of 16 below 4 GiB.
  package init(_ platform: PlatformDescription, at start: GuestAddress) {
    precondition(start.value % 16 == 0 && start.value < 1 << 32 - 1 << 16)
    self.start = start
    bytes =
      Self.pointer(to: UInt32(start.value) + UInt32(Self.pointerSize))
      + Self.configuration(platform)
  }

  /// 4.1, MP Floating Pointer Structure.
  private static func pointer(to table: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append("_MP_", count: 4)
    bytes.append(littleEndian: table)
    bytes += [1, 4]  // length in paragraphs of 16 bytes, version 1.4
    // Checksum; feature byte 1: there is a table; feature byte 2: no IMCR, so Virtual Wire mode.
    bytes += [0, 0, 0, 0, 0, 0]
    bytes.setChecksum(at: 10, over: 0..<pointerSize)
    return bytes
  }

  /// 4.2, MP Configuration Table Header, and the entries.
  private static func configuration(_ platform: PlatformDescription) -> [UInt8] {
    let entries = entries(platform)
    let length = entries.reduce(headerSize) { $0 + $1.count }
    var bytes: [UInt8] = []
    bytes.append("PCMP", count: 4)
    bytes.append(littleEndian: UInt16(length))
    bytes += [4, 0]  // version 1.4, checksum
    bytes.append("KVMLITE", count: 8)  // OEM ID
    bytes.append("PC", count: 12)  // Product ID
    bytes.append(littleEndian: UInt32(0))  // OEM Table Pointer
    bytes.append(littleEndian: UInt16(0))  // OEM Table Size
    bytes.append(littleEndian: UInt16(entries.count))
    bytes.append(littleEndian: platform.localAPIC)
    bytes.append(littleEndian: UInt32(0))  // extended table: none
    for entry in entries { bytes += entry }
    bytes.setChecksum(at: 7, over: 0..<length)
    return bytes
  }

  /// The entries by rising type, as 4.3 wants.
  private static func entries(_ platform: PlatformDescription) -> [[UInt8]] {
    var entries = processors(platform)
    if platform.pci != nil { entries.append(bus(pciBus, "PCI")) }
    entries.append(bus(isaBus, "ISA"))
    let ioapic = platform.ioapic
    // Flags: enabled.
    var entry: [UInt8] = [Entry.ioapic.rawValue, ioapic.id, ioapicVersion, 1]
    entry.append(littleEndian: ioapic.address)
    entries.append(entry)
    entries += interrupts(platform) + pciInterrupts(platform)
    entries.append(localInterrupt(.extINT, input: 0))
    entries.append(localInterrupt(.nmi, input: 1))
    return entries
  }

  /// 4.3.2
  private static func bus(_ id: UInt8, _ kind: String) -> [UInt8] {
    var bus: [UInt8] = [Entry.bus.rawValue, id]
    bus.append(kind, count: 6)
    return bus
  }

  /// 4.3.1; flags: enabled, and for the first that it boots.
  private static func processors(_ platform: PlatformDescription) -> [[UInt8]] {
    platform.processors.enumerated().compactMap { index, id in
      guard id < UInt32(allLocalAPICs) else { return nil }
      var entry: [UInt8] = [
        Entry.processor.rawValue, UInt8(id), localAPICVersion, index == 0 ? 0b11 : 0b01,
      ]
      entry.append(littleEndian: platform.processorIdentity.signature)
      entry.append(littleEndian: platform.processorIdentity.features)
      return entry + [UInt8](repeating: 0, count: 8)
    }
  }

  /// 4.3.4: the ISA interrupts, each on the input of its number unless overridden. IRQ 2 has none:
  /// it is the second 8259.
  private static func interrupts(_ platform: PlatformDescription) -> [[UInt8]] {
    (0..<16 as Range<UInt8>).compactMap { interrupt in
      let override = platform.overrides.first { $0.interrupt == interrupt }
      let global = override?.globalInterrupt ?? UInt32(interrupt)
      let (input, underflow) = global.subtractingReportingOverflow(platform.ioapic.interruptBase)
      guard interrupt != 2, !underflow, input < 0xFF else { return nil }
      var entry: [UInt8] = [Entry.ioInterrupt.rawValue, InterruptType.vectored.rawValue]
      // 0: as the bus has it, which is edge-triggered and active high.
      entry.append(littleEndian: override?.intiFlags ?? 0)
      return entry + [isaBus, interrupt, platform.ioapic.id, UInt8(input)]
    }
  }

  /// D.3: INTA# of each PCI device, the only pin of those with one function; level-triggered and
  /// active low. The source is the device's number above two bits of the pin's.
  private static func pciInterrupts(_ platform: PlatformDescription) -> [[UInt8]] {
    guard let pci = platform.pci else { return [] }
    return pci.interrupts.enumerated().dropFirst().compactMap { device, pins in
      guard let global = pins.first, global >= platform.ioapic.interruptBase else { return nil }
      return [Entry.ioInterrupt.rawValue, InterruptType.vectored.rawValue, 0b1111, 0]
        + [pciBus, UInt8(device << 2), platform.ioapic.id]
        + [UInt8(truncatingIfNeeded: global - platform.ioapic.interruptBase)]
    }
  }

  /// 4.3.5: LINT0 and LINT1 of every processor.
  private static func localInterrupt(_ type: InterruptType, input: UInt8) -> [UInt8] {
    [Entry.localInterrupt.rawValue, type.rawValue, 0, 0, isaBus, 0, allLocalAPICs, input]
  }
}
