/// The resources of a device, as `_CRS` gives them: descriptors and an end tag (ACPI 6.5, 6.4).
struct ResourceTemplate {
  private var bytes: [UInt8] = []

  /// The template as a term.
  var term: AML {
    // End Tag, 6.4.2.9; a checksum of 0 counts as right.
    AML.buffer(bytes + [0x79, 0])
  }

  /// `IO (Decode16, port, port, 0, count)`: ports at a fixed place (6.4.2.5).
  func ports(_ port: UInt16, count: UInt8) -> Self {
    var template = self
    template.bytes += [0x47, 1]
    template.bytes.append(littleEndian: port)
    template.bytes.append(littleEndian: port)
    template.bytes += [0, count]
    return template
  }

  /// `IRQNoFlags () { interrupt }`: an ISA interrupt, edge-triggered (6.4.2.1).
  func interrupt(_ interrupt: UInt8) -> Self {
    var template = self
    template.bytes.append(0x22)
    template.bytes.append(littleEndian: UInt16(1) << UInt16(interrupt & 15))
    return template
  }

  /// `Memory32Fixed (ReadWrite, start, count)`: memory at a fixed place (6.4.3.4).
  func memory(_ start: UInt32, count: UInt32) -> Self {
    var template = self
    template.bytes += [0x86, 9, 0, 1]
    template.bytes.append(littleEndian: start)
    template.bytes.append(littleEndian: count)
    return template
  }
}
