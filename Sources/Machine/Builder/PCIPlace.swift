import Devices

extension Machine {
  /// One function on the PCI bus, as it is now.
  public struct PCIPlace: Sendable {
    /// A range.
    public struct Range: Sendable {
      /// The register, its kind and size.
      public let bar: PCIBAR
      /// Where it is; nil while it isn't decoded.
      public let place: BusAddress?
    }

    /// Where it is on the bus.
    public let address: PCIAddress
    /// Its name, as traces show it.
    public let name: StaticString
    /// What it is.
    public let identity: PCIIdentity
    /// Its ranges, by register.
    public let ranges: [Range]
    /// The IOAPIC's input and the ISA interrupt of its pin, if it has one.
    public let pin: (global: UInt32, isa: UInt8)?
    /// How many MSI-X vectors it has.
    public let vectors: Int
  }

  /// All functions on the PCI bus with their places, by address.
  public var pciFunctions: [PCIPlace] {
    pciBus.functions.map { address, function in
      let ranges = zip(function.bars, function.places).map(PCIPlace.Range.init)
        .sorted { $0.bar.index < $1.bar.index }
      let global = PCIWiring.globalInterrupt(
        device: address.device, pin: PCIInterruptLines.pin(of: address))
      return PCIPlace(
        address: address, name: function.name, identity: function.identity, ranges: ranges,
        pin: function.hasPin ? (global, function.interruptLine) : nil,
        vectors: function.slot.msix?.count ?? 0)
    }
  }
}
