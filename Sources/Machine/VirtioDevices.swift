import Devices
import Host
import Memory
import VhostUser

/// The machine's virtio devices on both transports, and the threads that serve them.
final class VirtioDevices {
  /// A device on the MMIO bus.
  struct Place {
    let device: VirtioMMIO
    let start: GuestAddress
    let line: KVMInterruptLine
  }

  /// Those on the MMIO bus, in order.
  private(set) var mmio: [Place] = []
  /// The balloon, if there is one.
  private(set) var balloon: VirtioBalloon?

  private var cores: [VirtioCore] = []
  private let loop: WorkLoop?
  /// The vsock device's, whose data must not wait for what other devices do.
  private let vsockLoop: WorkLoop?

  /// Makes what `configuration` asks for, on `pci` or the MMIO bus. The virtio console prints to
  /// `console`, and has its input from `input` if it is to.
  init(
    _ configuration: Configuration, _ pci: inout PCIWiring, console: any ByteSink,
    _ input: InputPump, _ trace: TraceSinks?
  ) throws(MachineError) {
    let disks = configuration.disks.filter { $0.bus == .virtio || $0.bus == .mmio }
    var devices = configuration.devices.intersection([.entropy, .balloon, .console])
    if configuration.consoleInputDevice == .virtio { devices.insert(.console) }
    guard
      !disks.isEmpty || !configuration.networks.isEmpty || configuration.vsock != nil
        || !devices.isEmpty
    else {
      (loop, vsockLoop) = (nil, nil)
      return
    }
    do {
      let loop = try WorkLoop(name: "virtio")
      self.loop = loop
      vsockLoop = try configuration.vsock.map { (_) throws(Errno) in try WorkLoop(name: "vsock") }
      let surroundings = VirtioCore.Surroundings(
        memory: pci.platform.memory, loop: loop, observation: trace?.devices,
        report: configuration.deviceTrouble ?? { _ in })
      for disk in disks {
        // A thread for each processor is the most that is of use; small guests want one queue.
        let queues = disk.bus == .mmio ? 1 : min(configuration.vcpuCount, Self.mostQueues)
        let device = try Self.makeDisk(disk, queues, pci.platform.memory)
        if disk.bus == .mmio {
          try addMMIO(device, surroundings, pci.platform, trace)
        } else {
          try addPCI(device, surroundings, &pci)
        }
      }
      for network in configuration.networks {
        let device = try VirtioNet(
          network.backEnd, mac: network.mac, mtu: network.mtu, report: surroundings.report)
        try addPCI(device, surroundings, &pci)
      }
      if let vsock = configuration.vsock, let vsockLoop {
        var own = surroundings
        own.loop = vsockLoop
        try addPCI(VirtioVsock(cid: vsock.cid, host: vsock.host), own, &pci)
      }
      if devices.contains(.entropy) {
        try addPCI(VirtioEntropy(), surroundings, &pci)
      }
      if devices.contains(.balloon) {
        let device = VirtioBalloon(memory: pci.platform.memory, target: configuration.balloonTarget)
        try addPCI(device, surroundings, &pci)
        balloon = device
      }
      if devices.contains(.console) {
        let device = VirtioConsole(sink: console, demand: input)
        if configuration.consoleInputDevice == .virtio { input.receiver = device }
        try addPCI(device, surroundings, &pci)
      }
    } catch {
      if let error = error as? MachineError { throw error }
      throw .host("can't make the virtio devices: \(error)")
    }
    guard mmio.count <= Layout.virtioInterrupts.count else {
      throw .configuration(
        "there is room for \(Layout.virtioInterrupts.count) disks with bus=mmio, not for "
          + "\(mmio.count)")
    }
  }

  private static func makeDisk(
    _ disk: Configuration.Disk, _ queueCount: Int, _ memory: GuestMemory
  ) throws(MachineError) -> any VirtioDevice {
    switch disk.source {
    case .store(let store):
      return VirtioBlock(store, serial: disk.serial, queueCount: queueCount)
    case .vhostUser(let path):
      do throws(VhostUserError) {
        return try VhostUserBlock(socket: path, memory: memory, mostQueues: queueCount)
      } catch {
        throw .disk("\(path): no disk is served there by vhost-user: \(error)")
      }
    }
  }

  /// A disk has no more queues than this.
  private static let mostQueues = 8

  private func addPCI(
    _ device: any VirtioDevice, _ surroundings: VirtioCore.Surroundings, _ pci: inout PCIWiring
  ) throws(MachineError) {
    var own = surroundings
    own.place = pci.nextPlace.map { "\($0)" } ?? ""
    let transport: VirtioPCI
    do throws(Errno) { transport = try VirtioPCI(device, own, pci.platform) } catch {
      throw .host("can't make the virtio devices: \(error)")
    }
    try pci.add(transport.function)
    cores.append(transport.core)
  }

  private func addMMIO(
    _ device: any VirtioDevice, _ surroundings: VirtioCore.Surroundings, _ platform: PCIPlatform,
    _ trace: TraceSinks?
  ) throws(Errno) {
    // One too many is refused when all are counted.
    let index = min(mmio.count, Layout.virtioInterrupts.count - 1)
    let line = KVMInterruptLine(gsi: Layout.virtioInterrupts[index], trace: trace)
    let start = Layout.virtioMMIO(index)
    var own = surroundings
    own.place = hex(start.value)
    let transport = try VirtioMMIO(device, own, line: line)
    transport.connectDoorbells(at: start.value, platform.doorbells)
    mmio.append(Place(device: transport, start: start, line: line))
    cores.append(transport.core)
  }

  /// Ends all threads, after the request that each is at. The guest doesn't run any more.
  func stop() {
    for core in cores { core.stop() }
    loop?.stop()
    vsockLoop?.stop()
  }

  /// What the devices did; known once they have stopped.
  var statistics: [DeviceStatistics] {
    cores.map(\.statistics)
  }
}
