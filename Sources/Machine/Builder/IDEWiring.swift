import Devices
import Host
import Storage

/// The machine's IDE controller with its place on the PCI bus; there only where a disk is on it.
struct IDEWiring {
  /// The controller.
  let controller: IDEController
  /// The channels' interrupt inputs.
  let lines: [KVMInterruptLine]

  /// The controller for the IDE disks of `configuration`, beside an ISA bridge on `pci`; nil without
  /// such disks.
  init?(
    _ configuration: Configuration, _ pci: inout PCIWiring, _ trace: TraceSinks?
  ) throws(MachineError) {
    let disks = configuration.disks.compactMap { disk -> IDEController.Disk? in
      guard disk.bus == .ide, case .store(let store) = disk.source else { return nil }
      return IDEController.Disk(store, serial: disk.serial)
    }
    guard !disks.isEmpty else { return nil }
    let primary = KVMInterruptLine(gsi: Layout.ideInterrupts.primary, trace: trace)
    let secondary = KVMInterruptLine(gsi: Layout.ideInterrupts.secondary, trace: trace)
    lines = [primary, secondary]
    let bridge: PCIFunction
    let function: PCIFunction
    do throws(Errno) {
      let slot = try PCISlot(pci.platform)
      controller = try IDEController(
        disks, lines: (primary, secondary), memory: pci.platform.memory,
        observation: trace?.devices, mayMaster: { slot.isBusMaster })
      bridge = try .isaBridge(pci.platform)
      function = .piix3IDE(controller, slot)
    } catch { throw .host("can't make the IDE controller: \(error)") }
    try pci.add(bridge, at: Layout.isaBridge)
    try pci.add(function, at: Layout.ideFunction)
  }
}
