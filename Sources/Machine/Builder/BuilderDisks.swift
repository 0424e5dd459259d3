import Devices
import Host
import Memory
import VhostUser

/// Disks, on virtio and on IDE.
extension Builder {
  /// A disk has no more queues than this.
  private static let mostQueues = 8

  /// Adds a disk on virtio; those on IDE come with their controller.
  mutating func add(_ disk: VMConfiguration.Disk, _ node: VMConfiguration.Device) throws {
    if disk.bus == .ide { return }
    let isOnMMIO = node.place?.bus == .mmio
    // A thread for each processor is the most that is of use; small guests want one queue.
    let queues = isOnMMIO ? 1 : min(configuration.vcpuCount, Self.mostQueues)
    if let path = disk.socket {
      let device: VhostUserBlock
      do throws(VhostUserError) {
        device = try VhostUserBlock(socket: path, memory: platform.memory, mostQueues: queues)
      } catch {
        throw MachineError.disk("\(path): no disk is served there by vhost-user: \(error)")
      }
      try addVirtio(node, device)
    } else if let store = configuration.resources.disks[node.id] {
      try addVirtio(node, VirtioBlock(store, serial: disk.serial, queueCount: queues))
    }
  }

  /// Adds the IDE controller with all disks that are on it, beside an ISA bridge; nothing without such
  /// disks.
  mutating func addIDE() throws {
    let disks = (0..<IDEController.mostDisks).compactMap { drive -> IDEController.Disk? in
      guard let node = configuration.spec.devices.first(where: { $0.place == .ide(drive) }),
        let store = configuration.resources.disks[node.id]
      else { return nil }
      return IDEController.Disk(store, serial: node.disk.serial)
    }
    guard !disks.isEmpty else { return }
    try addFunction("isa-bridge", .isaBridge(platform), at: Layout.isaBridge)
    let interrupts = Layout.ideInterrupts
    let slot = try PCISlot(platform)
    let controller = try IDEController(
      disks, lines: (line(interrupts.primary), line(interrupts.secondary)),
      memory: platform.memory, observation: trace?.devices, mayMaster: { slot.isBusMaster })
    let function = PCIFunction.piix3IDE(controller, slot)
    add(
      "ide", function.name,
      [.function(Layout.ideFunction, function)]
        + zip(Layout.ideCommand, controller.commandBlocks).map { .ports($0.range, $1) }
        + zip(Layout.ideControl, controller.controlBlocks).map { .ports($0.range, $1) },
      interrupts: [interrupts.primary, interrupts.secondary],
      objects: [("", controller), ("function", function)],
      statistics: { controller.statistics })
    stops.append { controller.stop() }
  }
}
