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

  /// Those on PCI, in order.
  private(set) var pci: [VirtioPCI] = []
  /// Those on the MMIO bus, in order.
  private(set) var mmio: [Place] = []
  /// The balloon, if there is one.
  private(set) var balloon: VirtioBalloon?

  private var cores: [VirtioCore] = []
  private let loop: WorkLoop?
  /// The vsock device's, whose data must not wait for what other devices do.
  private let vsockLoop: WorkLoop?

  /// Makes what `configuration` asks for. The virtio console prints to `console`.
  init(
    _ configuration: Configuration, _ platform: PCIPlatform, console: any ByteSink,
    _ trace: TraceSinks?
  ) throws(MachineError) {
    let onMMIO = Self.mmioCount(configuration)
    guard onMMIO <= Layout.virtioInterrupts.count else {
      throw .configuration(
        "there is room for \(Layout.virtioInterrupts.count) virtio devices on the MMIO bus, not for "
          + "\(onMMIO)")
    }
    let disks = configuration.disks.compactMap { disk in
      disk.virtioBus(configuration.virtioBus).map { (disk, $0) }
    }
    guard !disks.isEmpty || Self.otherCount(configuration) > 0 else {
      (loop, vsockLoop) = (nil, nil)
      return
    }
    do {
      let loop = try WorkLoop(name: "virtio")
      self.loop = loop
      vsockLoop = try configuration.vsock.map { (_) throws(Errno) in try WorkLoop(name: "vsock") }
      let surroundings = VirtioCore.Surroundings(
        memory: platform.memory, loop: loop, takesTimes: configuration.observation != nil,
        report: configuration.deviceTrouble ?? { _ in })
      let place = Buses(surroundings: surroundings, platform: platform, trace: trace)
      for (disk, bus) in disks {
        // A thread for each processor is the most that is of use; small guests want one queue.
        let queues = bus == .mmio ? 1 : min(configuration.vcpuCount, Self.mostQueues)
        try add(Self.makeDisk(disk, queues, platform.memory), on: bus, of: place)
      }
      try addOthers(configuration, console, place)
    } catch {
      if let error = error as? MachineError { throw error }
      throw .host("can't make the virtio devices: \(error)")
    }
  }

  /// How many of a machine's virtio devices are on the MMIO bus.
  static func mmioCount(_ configuration: Configuration) -> Int {
    configuration.disks.count { $0.virtioBus(configuration.virtioBus) == .mmio }
      + (configuration.virtioBus == .mmio ? otherCount(configuration) : 0)
  }

  /// How many virtio devices a machine has that are no disks.
  private static func otherCount(_ configuration: Configuration) -> Int {
    configuration.networks.count + (configuration.vsock == nil ? 0 : 1)
      + configuration.devices.intersection([.entropy, .balloon, .console]).count
  }

  private func addOthers(
    _ configuration: Configuration, _ console: any ByteSink, _ place: Buses
  ) throws {
    let bus = configuration.virtioBus
    for network in configuration.networks {
      let device = try VirtioNet(
        network.backEnd, mac: network.mac, mtu: network.mtu, report: place.surroundings.report)
      try add(device, on: bus, of: place)
    }
    if let vsock = configuration.vsock, let vsockLoop {
      var own = place
      own.surroundings.loop = vsockLoop
      try add(VirtioVsock(cid: vsock.cid, host: vsock.host), on: bus, of: own)
    }
    if configuration.devices.contains(.entropy) { try add(VirtioEntropy(), on: bus, of: place) }
    if configuration.devices.contains(.balloon) {
      let device = VirtioBalloon(
        memory: place.platform.memory, target: configuration.balloonTarget)
      try add(device, on: bus, of: place)
      balloon = device
    }
    if configuration.devices.contains(.console) {
      try add(VirtioConsole(sink: console), on: bus, of: place)
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

  /// What devices are connected to.
  private struct Buses {
    var surroundings: VirtioCore.Surroundings
    let platform: PCIPlatform
    let trace: TraceSinks?
  }

  private func add(
    _ device: any VirtioDevice, on bus: Configuration.VirtioBus, of place: Buses
  ) throws(Errno) {
    switch bus {
    case .pci:
      let transport = try VirtioPCI(device, place.surroundings, place.platform)
      pci.append(transport)
      cores.append(transport.core)
    case .mmio:
      let line = KVMInterruptLine(gsi: Layout.virtioInterrupts[mmio.count], trace: place.trace)
      let transport = try VirtioMMIO(device, place.surroundings, line: line)
      let start = Layout.virtioMMIO(mmio.count)
      transport.connectDoorbells(at: start.value, place.platform.doorbells)
      mmio.append(Place(device: transport, start: start, line: line))
      cores.append(transport.core)
    }
  }

  /// Ends all threads, after the request that each is at. The guest doesn't run any more.
  func stop() {
    for core in cores { core.stop() }
    loop?.stop()
    vsockLoop?.stop()
  }

  /// What the devices did; known once they have stopped.
  var statistics: [DeviceStatistics] {
    cores.map { DeviceStatistics(name: $0.device.name, queues: $0.statistics) }
  }
}

/// What a device with queues did.
public struct DeviceStatistics: Sendable {
  /// The device's name.
  public let name: StaticString
  /// Its queues, by number.
  public let queues: [QueueStatistics]
}
