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
  private let worker: Worker?
  /// The vsock device's, whose data must not wait for what other devices do.
  private let vsockWorker: Worker?

  /// Makes what `configuration` asks for, on `pci` or the MMIO bus. The virtio console prints to
  /// `console`, and has its input from `input` if it is to.
  init(
    _ configuration: Configuration, _ pci: inout PCIWiring, console: any ByteSink,
    _ input: InputPump, _ trace: TraceSinks?, _ reports: DeviceReports
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
      (worker, vsockWorker) = (nil, nil)
      return
    }
    do {
      let worker = try Worker(name: "virtio")
      self.worker = worker
      vsockWorker = try configuration.vsock.map { (_) throws(Errno) in try Worker(name: "vsock") }
      let surroundings = VirtioCore.Surroundings(
        memory: pci.platform.memory, worker: worker, reports: reports,
        observation: trace?.devices)
      var place = Buses(surroundings: surroundings, pci: pci, trace: trace)
      for (disk, bus) in disks {
        // A thread for each processor is the most that is of use; small guests want one queue.
        let queues = bus == .mmio ? 1 : min(configuration.vcpuCount, Self.mostQueues)
        try add(Self.makeDisk(disk, queues, pci.platform.memory), on: bus, of: &place)
      }
      try addOthers(configuration, console, input, &place)
      pci = place.pci
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
      + configuration.allDevices.intersection([.entropy, .balloon, .console]).count
  }

  private func addOthers(
    _ configuration: Configuration, _ console: any ByteSink, _ input: InputPump,
    _ place: inout Buses
  ) throws {
    let bus = configuration.virtioBus
    for network in configuration.networks {
      let device = try VirtioNet(network.backEnd, mac: network.mac, mtu: network.mtu)
      try add(device, on: bus, of: &place)
    }
    if let vsock = configuration.vsock, let vsockWorker {
      let shared = place.surroundings.worker
      place.surroundings.worker = vsockWorker
      try add(VirtioVsock(cid: vsock.cid, host: vsock.host), on: bus, of: &place)
      place.surroundings.worker = shared
    }
    let devices = configuration.allDevices
    if devices.contains(.entropy) { try add(VirtioEntropy(), on: bus, of: &place) }
    if devices.contains(.balloon) {
      let device = VirtioBalloon(
        memory: place.surroundings.memory, target: configuration.balloonTarget)
      try add(device, on: bus, of: &place)
      balloon = device
    }
    if devices.contains(.console) {
      let device = VirtioConsole(sink: console, demand: input)
      if configuration.consoleInputDevice == .virtio { input.receiver = device }
      try add(device, on: bus, of: &place)
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
    var pci: PCIWiring
    let trace: TraceSinks?
  }

  private func add(
    _ device: any VirtioDevice, on bus: Configuration.VirtioBus, of place: inout Buses
  ) throws {
    var surroundings = place.surroundings
    switch bus {
    case .pci:
      surroundings.place = place.pci.nextPlace.map { "\($0)" } ?? ""
      let transport = try VirtioPCI(device, surroundings, place.pci.platform)
      try place.pci.add(transport.function)
      cores.append(transport.core)
    case .mmio:
      let line = KVMInterruptLine(gsi: Layout.virtioInterrupts[mmio.count], trace: place.trace)
      let start = Layout.virtioMMIO(mmio.count)
      surroundings.place = hex(start.value)
      let transport = try VirtioMMIO(device, surroundings, line: line)
      transport.connectDoorbells(at: start.value, place.pci.platform.doorbells)
      mmio.append(Place(device: transport, start: start, line: line))
      cores.append(transport.core)
    }
  }

  /// Ends all threads, after the request that each is at. The guest doesn't run any more.
  func stop() {
    for core in cores { core.stop() }
    worker?.stop()
    vsockWorker?.stop()
  }

  /// What the devices did; known once they have stopped.
  var statistics: [DeviceStatistics] {
    cores.map(\.statistics)
  }
}
