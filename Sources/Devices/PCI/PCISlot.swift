import Host
import Memory
import Synchronization

/// What the machine gives to the functions on its bus.
package struct PCIPlatform: Sendable {
  /// Guest memory, for DMA.
  package let memory: GuestMemory
  /// Takes doorbells.
  package let doorbells: any DoorbellHost
  /// Takes messages.
  package let messages: any MessageRouter

  /// Takes the three as they are.
  package init(memory: GuestMemory, doorbells: any DoorbellHost, messages: any MessageRouter) {
    self.memory = memory
    self.doorbells = doorbells
    self.messages = messages
  }
}

/// A device's side of the bus: what it raises, rings by and may do. It is made first, then the device
/// on it, then the `PCIFunction` that holds both.
///
/// Nothing here takes a lock that is held while a device is called, so a device may use it under its
/// own.
package final class PCISlot: Sendable {
  /// The machine's part.
  package let platform: PCIPlatform
  /// The function's INTx# pin: level-triggered, shared, and held back by Interrupt Disable.
  package let pin = PCIInterruptPin()
  /// Its MSI-X vectors, if it has any.
  package let msix: MSIX?
  let doorbells: PCIDoorbells
  let mayMaster = Atomic(false)

  /// A slot for a device with `vectors` MSI-X vectors, 0 to 2048.
  package init(_ platform: PCIPlatform, vectors: Int = 0) throws(Errno) {
    self.platform = platform
    msix = vectors > 0 ? try MSIX(count: vectors, platform.messages) : nil
    doorbells = PCIDoorbells(platform.doorbells)
  }

  /// Whether the driver has switched bus mastering on: without it the function must not touch guest
  /// memory nor send messages (PCI 3.0, 6.2.2).
  package var isBusMaster: Bool { mayMaster.load(ordering: .acquiring) }

  /// Lets writes at `offset` in the range of register `bar` ring `doorbell`, wherever that range is
  /// and moves to.
  package func connect(_ doorbell: Doorbell, bar: Int, offset: UInt64) {
    doorbells.add(doorbell, bar: bar, offset: offset)
  }

  /// Lets them reach the device again. When this returns, no more writes ring.
  package func disconnect(_ doorbell: Doorbell) { doorbells.remove(doorbell) }
}
