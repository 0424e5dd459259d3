import Devices
import Host
import Memory
import Synchronization

/// A PCI function for tests: 4 KiB of registers in memory (BAR 0), the same at 16 ports (BAR 2),
/// 64 KiB of anything with a 64-bit address (BAR 4), MSI-X (BAR 1) and a pin.
///
/// Registers of 32 bits: at 0 a scratch register, at 4 raises the vector written, at 8 sets the pin to
/// what is written, at 12 counts writes that reached it, which a doorbell keeps away.
package final class PCITestDevice: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "pci-test" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }

  /// Its side of the bus.
  package let slot: PCISlot
  private let scratch = Atomic<UInt32>(0)
  private let rings = Atomic<UInt32>(0)
  private let isPinRaised = Atomic(false)

  /// The number of its vectors.
  package static let vectors = 3
  /// Its identity: what QEMU's pci-testdev has.
  package static let identity = PCIIdentity(
    vendor: 0x1B36, device: 0x0005, revision: 1, kind: .other, subsystemVendor: 0x1AF4,
    subsystem: 0x1100)

  private init(_ slot: PCISlot) { self.slot = slot }

  /// Makes the function with its device.
  package static func make(
    _ platform: PCIPlatform, observer: (any PCIFunctionObserver)? = nil
  ) throws(Errno) -> (device: PCITestDevice, function: PCIFunction) {
    let device = PCITestDevice(try PCISlot(platform, vectors: vectors))
    let bars = [
      PCIBAR(0, .memory32, size: 4096, device), PCIBAR(2, .port, size: 16, device),
      PCIBAR(4, .memory64, size: 65536, isPrefetchable: true, device),
    ]
    let vendor = PCICapability(
      id: PCICapability.vendorSpecificID, body: [6, 0xAA, 0x00, 0x00], writable: [0, 0, 0xF0])
    let function = PCIFunction(
      name: "pci-test", identity, device.slot, bars: bars, capabilities: [vendor], hasPin: true,
      observer: observer)
    return (device, function)
  }

  /// Answers from the register at `offset`.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    let word: UInt32 =
      switch offset & ~3 {
      case 0: scratch.load(ordering: .relaxed)
      case 12: rings.load(ordering: .relaxed)
      default: 0
      }
    return UInt64(word) >> ((offset & 3) * 8) & UInt64.max >> UInt64(clamping: 64 - width * 8)
  }

  /// Does what the register at `offset` says.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    switch offset {
    case 0: scratch.store(UInt32(truncatingIfNeeded: value), ordering: .relaxed)
    case 4: slot.msix?.raise(Int(value & 0xFFFF_FFFF))
    case 8: setPin(value != 0)
    case 12: rings.add(1, ordering: .relaxed)
    default: break
    }
  }
}

extension PCITestDevice: Stateful {
  private func setPin(_ isRaised: Bool) {
    isPinRaised.store(isRaised, ordering: .relaxed)
    slot.pin.set(isRaised)
  }

  /// Clears all registers and lowers the pin.
  package func reset() {
    scratch.store(0, ordering: .relaxed)
    rings.store(0, ordering: .relaxed)
    setPin(false)
  }

  /// Writes the registers and the pin.
  package func save(to state: inout StateWriter) {
    state.write("scratch", scratch.load(ordering: .relaxed))
    state.write("rings", rings.load(ordering: .relaxed))
    state.write("pin", isPinRaised.load(ordering: .relaxed))
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    let new: (UInt32, UInt32, Bool) =
      (try state.read("scratch"), try state.read("rings"), try state.readFlag("pin"))
    scratch.store(new.0, ordering: .relaxed)
    rings.store(new.1, ordering: .relaxed)
    setPin(new.2)
  }
}
