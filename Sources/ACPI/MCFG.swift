/// The table of PCI Express memory-mapped configuration space (PCI Firmware Specification 3.2, 4.1.2):
/// where ECAM is.
enum MCFG {
  /// The table, with one entry: segment 0, bus 0 alone.
  static func table(_ pci: PlatformDescription.PCI) -> [UInt8] {
    var body = [UInt8](repeating: 0, count: 8)
    body.append(littleEndian: pci.configuration)
    body.append(littleEndian: UInt16(0))  // PCI Segment Group Number
    body += [0, 0, 0, 0, 0, 0]  // Start Bus Number, End Bus Number, reserved
    return SystemTable.make("MCFG", revision: 1, body)
  }
}
