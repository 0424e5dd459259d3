import Synchronization

/// Configuration mechanism #1: the address at port 0xCF8, the data at 0xCFC (PCI 3.0, 3.2.2.3.2), and
/// between them the chip set's reset control register at 0xCF9.
package final class PCIConfigurationPorts: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "pci-config" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }

  private let bus: PCIBus
  private let resetControl: ResetControl
  private let address = Atomic<UInt32>(0)

  private static let enable: UInt32 = 1 << 31
  // Bits 30 to 24 and the last two are reserved and read zero.
  private static let kept: UInt32 = 0x80FF_FFFC
  private static let dataOffset: UInt64 = 4
  private static let resetOffset: UInt64 = 1

  /// The ports of `bus`, with `reset` for bytes at the second.
  package init(_ bus: PCIBus, reset: ResetControl) {
    self.bus = bus
    resetControl = reset
  }

  /// The name of who answers: the function that the address names, the reset control register, or the
  /// ports themselves.
  package func name(at offset: UInt64) -> StaticString? {
    if offset == Self.resetOffset { return resetControl.name }
    guard offset >= Self.dataOffset, let target = target(offset) else { return name }
    return bus.name(target.function) ?? name
  }

  /// Answers the address to a read of all 32 bits, and at the data ports what it names; ones where
  /// there is nothing.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    if offset < Self.dataOffset {
      if offset == 0 && width == 4 { return UInt64(address.load(ordering: .relaxed)) }
      return resetControl.read(offset: offset, width: width)
    }
    guard let target = target(offset) else { return .max >> UInt64(clamping: 64 - width * 8) }
    return bus.readConfiguration(target.function, target.register, width: width)
  }

  /// Takes the address if all 32 bits are written at once, and at the data ports what is for the
  /// register that it names.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    if offset < Self.dataOffset {
      if offset == 0 && width == 4 {
        address.store(UInt32(truncatingIfNeeded: value) & Self.kept, ordering: .relaxed)
      } else {
        resetControl.write(offset: offset, width: width, value: value)
      }
    } else if let target = target(offset) {
      bus.writeConfiguration(target.function, target.register, width: width, value: value)
    }
  }

  /// What data at `offset` is for; nil unless the address is enabled and of bus 0.
  private func target(_ offset: UInt64) -> (function: UInt8, register: UInt64)? {
    let address = address.load(ordering: .relaxed)
    guard address & Self.enable != 0, address >> 16 & 0xFF == 0 else { return nil }
    return (UInt8(truncatingIfNeeded: address >> 8), UInt64(address & 0xFC) | offset & 3)
  }
}

extension PCIConfigurationPorts: Stateful {
  /// Clears the address and the reset control register.
  package func reset() {
    address.store(0, ordering: .relaxed)
    resetControl.reset()
  }

  /// Writes both.
  package func save(to state: inout StateWriter) {
    state.write("address", address.load(ordering: .relaxed))
    state.group("reset-control") { resetControl.save(to: &$0) }
  }

  /// Takes both back.
  package func restore(from state: StateReader) throws(StateError) {
    let new = try state.read("address", bits: Self.kept)
    try resetControl.restore(from: state.group("reset-control"))
    address.store(new, ordering: .relaxed)
  }
}
