/// The Multiple APIC Description Table (ACPI 6.5, 5.2.12): processors and interrupt controllers.
enum MADT {
  /// Table 5.21, Interrupt Controller Structure Types.
  private enum Structure: UInt8 {
    case localAPIC = 0
    case ioapic = 1
    case sourceOverride = 2
    case localAPICNMI = 4
    case localX2APIC = 9
    case localX2APICNMI = 10
  }

  // An ID of 8 bits that isn't the one for all (5.2.12.12).
  private static let largestLocalAPICID: UInt32 = 254

  /// The table. PCAT_COMPAT: the machine has two 8259s as well.
  static func table(_ platform: PlatformDescription) -> [UInt8] {
    var body: [UInt8] = []
    body.append(littleEndian: platform.localAPIC)
    body.append(littleEndian: UInt32(1))
    for (uid, id) in platform.processors.enumerated() {
      body += processor(uid: UInt32(truncatingIfNeeded: uid), id: id)
    }
    body += ioapic(platform.ioapic)
    for override in platform.overrides { body += sourceOverride(override) }
    body += nonmaskable(platform.processors)
    return SystemTable.make("APIC", revision: 5, body)
  }

  private static func structure(_ kind: Structure, _ contents: [UInt8]) -> [UInt8] {
    [kind.rawValue, UInt8(contents.count + 2)] + contents
  }

  /// 5.2.12.2 and 5.2.12.12; flags: enabled.
  private static func processor(uid: UInt32, id: UInt32) -> [UInt8] {
    var contents: [UInt8] = []
    if id <= largestLocalAPICID && uid <= largestLocalAPICID {
      contents += [UInt8(uid), UInt8(id)]
      contents.append(littleEndian: UInt32(1))
      return structure(.localAPIC, contents)
    }
    contents.append(littleEndian: UInt16(0))
    contents.append(littleEndian: id)
    contents.append(littleEndian: UInt32(1))
    contents.append(littleEndian: uid)
    return structure(.localX2APIC, contents)
  }

  /// 5.2.12.3
  private static func ioapic(_ ioapic: PlatformDescription.IOAPIC) -> [UInt8] {
    var contents: [UInt8] = [ioapic.id, 0]
    contents.append(littleEndian: ioapic.address)
    contents.append(littleEndian: ioapic.interruptBase)
    return structure(.ioapic, contents)
  }

  /// 5.2.12.5; bus 0 is ISA.
  private static func sourceOverride(
    _ override: PlatformDescription.InterruptOverride
  ) -> [UInt8] {
    var contents: [UInt8] = [0, override.interrupt]
    contents.append(littleEndian: override.globalInterrupt)
    contents.append(littleEndian: override.intiFlags)
    return structure(.sourceOverride, contents)
  }

  /// LINT1 of every processor is for NMIs (5.2.12.7 and 5.2.12.13).
  private static func nonmaskable(_ processors: [UInt32]) -> [UInt8] {
    var bytes = structure(.localAPICNMI, [0xFF, 0, 0, 1])
    if processors.count > Int(largestLocalAPICID) + 1
      || processors.contains(where: { $0 > largestLocalAPICID })
    {
      bytes += structure(.localX2APICNMI, [0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0])
    }
    return bytes
  }
}

extension PlatformDescription.InterruptOverride {
  /// MPS INTI flags (ACPI 6.5, table 5.25; Intel MP 1.4, 4.3.4): polarity in bits 0 and 1, where 1
  /// is active high, and trigger in bits 2 and 3, where 1 is edge and 3 is level.
  var intiFlags: UInt16 { isLevelTriggered ? 0b1101 : 0b0101 }
}
