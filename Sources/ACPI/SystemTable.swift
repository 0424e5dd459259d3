/// A table with the header that all but RSDP and FACS have (ACPI 6.5, 5.2.6).
enum SystemTable {
  static let headerSize = 36
  static let checksumOffset = 9

  /// The table with `body` behind its header.
  static func make(_ signature: String, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
    var table: [UInt8] = []
    table.reserveCapacity(headerSize + body.count)
    table.append(signature, count: 4)
    table.append(littleEndian: UInt32(headerSize + body.count))
    table.append(revision)
    table.append(0)  // checksum
    table.append("KVMLIT", count: 6)  // OEMID
    table.append("KVMLITE", count: 8)  // OEM Table ID
    table.append(littleEndian: UInt32(1))  // OEM Revision
    table.append("KVML", count: 4)  // Creator ID
    table.append(littleEndian: UInt32(1))  // Creator Revision
    table += body
    table.setChecksum(at: checksumOffset, over: 0..<table.count)
    return table
  }
}
