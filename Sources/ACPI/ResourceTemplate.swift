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

  /// `Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { interrupt }`: a global interrupt
  /// (6.4.3.6).
  func globalInterrupt(_ interrupt: UInt32) -> Self {
    var template = self
    template.bytes += [0x89, 6, 0, 0b0001, 1]
    template.bytes.append(littleEndian: interrupt)
    return template
  }

  // Address Space Resource Descriptors: what a bridge passes on. All are fixed in place and length.

  private enum Space: UInt8 {
    case memory = 0
    case ports = 1
    case buses = 2
  }

  // General Flags: _MIF and _MAF, the ends are fixed.
  private static let fixed: UInt8 = 0b1100

  /// `WordBusNumber (ResourceProducer, ...)` (6.4.3.5.3).
  func buses(_ range: ClosedRange<UInt16>) -> Self { window(0x88, .buses, 0, range) }

  /// `WordIO (ResourceProducer, ..., EntireRange)`: ports (6.4.3.5.3).
  func portWindow(_ range: ClosedRange<UInt16>) -> Self { window(0x88, .ports, 0b11, range) }

  /// `DWordMemory (ResourceProducer, ..., NonCacheable, ReadWrite)` (6.4.3.5.2).
  func memoryWindow(_ range: ClosedRange<UInt32>) -> Self { window(0x87, .memory, 1, range) }

  /// `QWordMemory (ResourceProducer, ..., NonCacheable, ReadWrite)` (6.4.3.5.1).
  func memoryWindow(_ range: ClosedRange<UInt64>) -> Self { window(0x8A, .memory, 1, range) }

  private func window<T: FixedWidthInteger>(
    _ tag: UInt8, _ space: Space, _ flags: UInt8, _ range: ClosedRange<T>
  ) -> Self {
    var template = self
    template.bytes.append(tag)
    template.bytes.append(littleEndian: UInt16(3 + 5 * T.bitWidth / 8))
    template.bytes += [space.rawValue, Self.fixed, flags]
    // Granularity, minimum, maximum, translation, length.
    for value in [
      0, range.lowerBound, range.upperBound, 0, range.upperBound - range.lowerBound + 1,
    ] {
      template.bytes.append(littleEndian: value)
    }
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
