/// The ACPI tables for firmware that puts them where it has room: files of QEMU's fw_cfg with the
/// commands of its linker/loader, which SeaBIOS and OVMF carry out (QEMU, hw/acpi/bios-linker-loader.c).
package struct TableLoader: Sendable {
  /// A file, by its name.
  package typealias File = (name: String, bytes: [UInt8])

  /// The RSDP, the other tables, and what to do with both. Addresses in the first two are offsets into
  /// the second.
  package let files: [File]

  private static let rsdpName = "etc/acpi/rsdp"
  private static let tablesName = "etc/acpi/tables"

  /// Where a file is to go: anywhere below 4 GiB, or in the last 64 KiB below 1 MiB, where kernels look
  /// for the RSDP.
  private enum Zone: UInt8 {
    case high = 1
    case lastSegment = 2
  }

  /// The tables of `platform`.
  package init(_ platform: PlatformDescription) {
    let acpi = ACPITables(platform, at: 0)
    var tables = acpi.bytes
    // The RSDP has a file of its own; offsets stay as they are.
    tables.replaceSubrange(0..<RSDP.size, with: [UInt8](repeating: 0, count: RSDP.size))
    var script =
      Self.allocate(Self.rsdpName, alignment: 16, .lastSegment)
      + Self.allocate(Self.tablesName, alignment: 64, .high)
    func name(_ offset: Int) -> String { offset < RSDP.size ? Self.rsdpName : Self.tablesName }
    for pointer in acpi.pointers { script += Self.addPointer(in: name(pointer.offset), pointer) }
    for sum in acpi.checksums { script += Self.addChecksum(in: name(sum.offset), sum) }
    files = [
      (Self.rsdpName, Array(acpi.bytes[..<RSDP.size])), (Self.tablesName, tables),
      ("etc/table-loader", script),
    ]
  }

  // MARK: Commands, of 128 bytes each

  private static func allocate(_ file: String, alignment: UInt32, _ zone: Zone) -> [UInt8] {
    var bytes = command(1, file)
    bytes.append(littleEndian: alignment)
    return padded(bytes + [zone.rawValue])
  }

  /// Adds the address of the tables to what `pointer` holds.
  private static func addPointer(in file: String, _ pointer: ACPITables.Pointer) -> [UInt8] {
    var bytes = command(2, file)
    bytes.append(tablesName, count: nameSize, padding: 0)
    bytes.append(littleEndian: UInt32(pointer.offset))
    return padded(bytes + [UInt8(pointer.width)])
  }

  private static func addChecksum(in file: String, _ sum: ACPITables.Checksum) -> [UInt8] {
    var bytes = command(3, file)
    bytes.append(littleEndian: UInt32(sum.offset))
    bytes.append(littleEndian: UInt32(sum.range.lowerBound))
    bytes.append(littleEndian: UInt32(sum.range.count))
    return padded(bytes)
  }

  private static let nameSize = 56

  private static func command(_ number: UInt32, _ file: String) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(littleEndian: number)
    bytes.append(file, count: nameSize, padding: 0)
    return bytes
  }

  private static func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: 128 - bytes.count)
  }
}
