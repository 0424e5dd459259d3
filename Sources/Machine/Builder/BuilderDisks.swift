import Devices
import Host
import Memory
import VhostUser

/// Disks, on virtio and on IDE.
extension Builder {
  /// A disk has no more queues than this.
  private static let mostQueues = 8

  /// Adds a disk on virtio; those on IDE come with their controller.
  mutating func addVirtioDisk(
    _ device: VMConfiguration.Device, _ disk: VMConfiguration.Disk
  ) throws {
    guard disk.bus != .ide else { return }
    // A thread for each processor is the most that is of use; small guests want one queue.
    var queues = 1
    if case .pci = device.place { queues = min(spec.vcpuCount, Self.mostQueues) }
    if let store = configuration.resources.disks[device.id], disk.socket == nil {
      try addVirtio(device, VirtioBlock(store, serial: disk.serial, queueCount: queues))
    } else if let path = disk.socket, let socket = configuration.resources.vhostUsers[device.id] {
      let remote: VhostUserBlock
      do throws(VhostUserError) {
        remote = try VhostUserBlock(socket, memory: platform.memory, mostQueues: queues)
      } catch {
        throw MachineError.disk("\(path): no disk is served there by vhost-user: \(error)")
      }
      try addVirtio(device, remote)
    }
  }

  /// Adds the IDE controller with all disks that are on it, beside an ISA bridge; nothing without such
  /// disks.
  mutating func addIDE() throws {
    var drives: [Int: IDEController.Disk] = [:]
    for device in spec.devices {
      guard case .ide(let drive) = device.place,
        let store = configuration.resources.disks[device.id]
      else { continue }
      drives[drive] = IDEController.Disk(store, serial: device.disk.serial)
    }
    let disks = (0..<drives.count).compactMap { drives[$0] }
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
      stateful: [("", controller), ("function", function)], pausable: [controller],
      statistics: { controller.statistics }, traffic: { controller.traffic })
    stops.append { controller.stop() }
  }
}
