/// Configuration by memory accesses, ECAM: 4 KiB for each function of bus 0 (PCI Express 3.0, 7.2.2).
package final class PCIConfigurationMemory: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "pci-ecam" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }
  /// How many bytes one bus has.
  package static let size: UInt64 = 1 << 20

  private let bus: PCIBus

  /// The configuration space of `bus`.
  package init(_ bus: PCIBus) { self.bus = bus }

  /// The name of the function at `offset`, or of this if there is none.
  package func name(at offset: UInt64) -> StaticString? { bus.name(Self.function(offset)) ?? name }

  /// Answers from the registers of the function at `offset`; ones where there is none.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    bus.readConfiguration(Self.function(offset), offset & 0xFFF, width: width)
  }

  /// Writes to them.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    bus.writeConfiguration(Self.function(offset), offset & 0xFFF, width: width, value: value)
  }

  private static func function(_ offset: UInt64) -> UInt8 {
    UInt8(truncatingIfNeeded: offset >> 12)
  }
}
