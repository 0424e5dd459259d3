/// The Root System Description Pointer of revision 2 (ACPI 6.5, 5.2.5.3).
enum RSDP {
  static let size = 36
  // What a kernel of ACPI 1.0 sums up.
  private static let firstSize = 20

  static let pointers = [
    ACPITables.Pointer(offset: 16, width: 4), ACPITables.Pointer(offset: 24, width: 8),
  ]
  static let checksums = [
    ACPITables.Checksum(offset: 8, range: 0..<firstSize),
    ACPITables.Checksum(offset: 32, range: 0..<size),
  ]

  /// Points to both lists of tables, the one with 32-bit and the one with 64-bit addresses.
  static func bytes(rsdt: UInt32, xsdt: UInt32) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append("RSD PTR ", count: 8)
    bytes.append(0)  // Checksum
    bytes.append("KVMLIT", count: 6)  // OEMID
    bytes.append(2)  // Revision
    bytes.append(littleEndian: rsdt)
    bytes.append(littleEndian: UInt32(size))
    bytes.append(littleEndian: UInt64(xsdt))
    bytes += [0, 0, 0, 0]  // Extended Checksum, Reserved
    bytes.setChecksum(at: 8, over: 0..<firstSize)
    bytes.setChecksum(at: 32, over: 0..<size)
    return bytes
  }
}

/// The lists of all tables but FACS and DSDT, which FADT names.
enum RootTables {
  /// The list of kernels that know ACPI 1.0 only (ACPI 6.5, 5.2.7).
  static func rsdt(_ tables: [UInt32]) -> [UInt8] {
    var body: [UInt8] = []
    for table in tables { body.append(littleEndian: table) }
    return SystemTable.make("RSDT", revision: 1, body)
  }

  /// The list of all others (5.2.8).
  static func xsdt(_ tables: [UInt32]) -> [UInt8] {
    var body: [UInt8] = []
    for table in tables { body.append(littleEndian: UInt64(table)) }
    return SystemTable.make("XSDT", revision: 1, body)
  }

  /// Where the addresses are in a list of so many.
  static func pointers(_ count: Int, width: Int) -> [ACPITables.Pointer] {
    (0..<count).map { .init(offset: SystemTable.headerSize + $0 * width, width: width) }
  }
}
