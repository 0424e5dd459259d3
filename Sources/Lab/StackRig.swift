import Devices
import Host
import Memory
import Storage
import VhostUser

/// A virtual disk of the experiment `stack`: a device with something behind it, and a guest with a driver.
final class StackRig {
  /// What the guest sees.
  enum Kind: String {
    case ide = "IDE"
    case mmio = "virtio-mmio"
    case pci = "virtio-pci"
  }

  /// Where the guest's driver puts things: guest-asm/lab/stack.S.
  enum Place {
    static let header: UInt64 = 0x30_3000
    static let descriptors: UInt64 = 0x30_0000
    static let window: UInt64 = 0x3100_0000
  }

  let kind: Kind
  let io: IOBench
  /// What the driver did to find the disk.
  private(set) var search: [IOBench.Access] = []
  private var ide: IDEController?
  private var core: VirtioCore?
  private var worker: Worker?

  /// Sets up `kind` in front of `store`.
  init(_ kind: Kind, _ kit: Probe.Kit, _ store: any BlockStore) throws(LabError) {
    self.kind = kind
    io = try IOBench(kit, seconds: 120, name: "stack")
    if kind == .ide {
      try addIDE(store)
    } else {
      try addVirtio(VirtioBlock(store, serial: StackDisks.serial))
    }
  }

  /// Sets up virtio-pci in front of another process that serves at `socket`.
  init(_ kit: Probe.Kit, socket: String) throws(LabError) {
    kind = .pci
    io = try IOBench(kit, seconds: 120, name: "stack")
    do {
      try addVirtio(
        VhostUserBlock(VhostUserSocket(path: socket), memory: io.bench.memory, mostQueues: 1))
    } catch { throw .unexpected("the back end can't be reached: \(error)") }
  }

  deinit {
    ide?.stop()
    core?.stop()
    worker?.stop()
  }

  private func addIDE(_ store: any BlockStore) throws(LabError) {
    let ide = try host { () throws(Errno) in
      try IDEController(
        [.init(store, serial: StackDisks.serial)], lines: (io.interrupt, io.interrupt),
        memory: io.bench.memory, mayMaster: { true })
    }
    self.ide = ide
    try io.add(port: ide.commandBlocks[0], at: 0x1F0, count: 8)
    try io.add(port: ide.controlBlocks[0], at: 0x3F6, count: 1)
  }

  private func addVirtio(_ device: any VirtioDevice) throws(LabError) {
    let memory = io.bench.memory
    let worker = try host { () throws(Errno) in try Worker(name: "virtio") }
    self.worker = worker
    let surroundings = try host { () throws(Errno) in
      VirtioCore.Surroundings(memory: memory, worker: worker, reports: try DeviceReports())
    }
    let doorbells = LabDoorbells(io.bench.vm)
    if kind == .mmio {
      let transport = try host { () throws(Errno) in
        try VirtioMMIO(device, surroundings, line: io.interrupt)
      }
      core = transport.core
      transport.connectDoorbells(at: IOBench.Place.virtio, doorbells)
      try io.add(memory: transport, at: IOBench.Place.virtio, count: VirtioMMIO.size)
      _ = try io.run("mmio setup", pieces: 0, batch: 0)
      return
    }
    let platform = PCIPlatform(memory: memory, doorbells: doorbells, messages: NoMessages())
    let (transport, bridge) = try host { () throws(Errno) in
      (try VirtioPCI(device, surroundings, platform), try PCIFunction.hostBridge(platform))
    }
    core = transport.core
    let window = PCIWindow(start: Place.window, count: 16 << 20)
    let bus = PCIBus(
      [(PCIAddress(device: 0), bridge), (PCIAddress(device: 2), transport.function)],
      .init(ports: PCIWindow(start: 0xC000, count: 0x1000), memory32: window, memory64: nil),
      PCIInterruptLines(ioapic: [io.interrupt], pic: [NoLine()]))
    try io.add(
      port: PCIConfigurationPorts(bus, reset: ResetControl(machine: NoMachine())), at: 0xCF8,
      count: 8)
    try io.add(memory: bus.makeMemoryWindow(), at: window.start, count: window.count)
    io.log = []
    _ = try io.run("pci scan", pieces: 0, batch: 0)
    search = io.log ?? []
    io.log = nil
    _ = try io.run("pci setup", pieces: 0, batch: 0)
  }

  /// Reads `count` sectors from `sector` on into the guest's buffer.
  func read(_ sector: Int, _ count: Int) throws(LabError) -> IOBench.Sample {
    let view = try io.data(count * 512)
    for index in 0..<count * 64 { view.store(0 as UInt64, index * 8) }
    return try io.run(kind == .ide ? "ide read" : "virtio read", pieces: count, batch: sector)
  }

  /// What the device says that it is: IDENTIFY DEVICE's 512 bytes, or virtio's serial number.
  func identity() throws(LabError) -> [UInt8] {
    let count = kind == .ide ? 512 : 20
    _ = try io.run(kind == .ide ? "ide identify" : "virtio identify", pieces: 1, batch: 0)
    let view = try io.data(count)
    return (0..<count).map { view.load($0, as: UInt8.self) }
  }
}

/// No interrupts by message: the driver uses the pin.
private final class NoMessages: MessageRouter {
  private final class Route: MessageRoute {
    func set(_ message: InterruptMessage?) {}
  }
  func makeRoute(for event: SharedEvent) -> any MessageRoute { Route() }
}

private final class NoLine: InterruptLine {
  func set(_ isRaised: Bool) {}
}

/// A bench has no power switch.
private final class NoMachine: MachineControl {
  func requestPowerOff() {}
  func requestSuspend() {}
  func requestReset() {}
  func requestExit(_ value: UInt32) {}
}
