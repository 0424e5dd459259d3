import Devices
import Host
import KVM
import Memory
import Network
import Synchronization

/// Makes a machine's devices: each is a line in `addDevices`, and comes to be a node of the inventory.
///
/// What is connected to nothing but the machine is made in that line; who needs more has a function
/// below. BuilderBuses.swift puts them at their places.
struct Builder {
  let configuration: Configuration
  let control: RunControl
  let input: InputPump
  let trace: TraceSinks?
  let cpuid: CPUID
  let platform: PCIPlatform
  let messages = KVMMessageRouter()
  let doorbells = KVMDoorbells()

  var nodes: [DeviceNode] = []
  var ports = Bus()
  var mmio = Bus()
  var lines: [KVMInterruptLine] = []
  var functions: [(address: PCIAddress, function: PCIFunction)] = []
  var sharedWorker: Worker?
  var workers: [Worker] = []
  var stops: [@Sendable () -> Void] = []
  private var memoryHole: Range<UInt64> = 0..<0
  private var balloon: VirtioBalloon?

  private init(
    _ configuration: Configuration, _ control: RunControl, _ input: InputPump,
    _ trace: TraceSinks?, _ memory: GuestMemory, _ cpuid: CPUID
  ) {
    self.configuration = configuration
    self.control = control
    self.input = input
    self.trace = trace
    self.cpuid = cpuid
    platform = PCIPlatform(memory: memory, doorbells: doorbells, messages: messages)
  }

  /// The devices of a machine with `memory`, whose processors are as `cpuid` says.
  static func build(
    _ configuration: Configuration, _ control: RunControl, _ input: InputPump,
    _ trace: TraceSinks?, _ memory: GuestMemory, _ cpuid: CPUID
  ) throws(MachineError) -> Inventory {
    var builder = Builder(configuration, control, input, trace, memory, cpuid)
    let clock = try builder.addClock()
    let powerManagement = builder.addPowerManagement()
    do { try builder.addDevices() } catch let error as MachineError { throw error } catch {
      throw .host("can't make the devices: \(error)")
    }
    let pci = builder.addPCIBus()
    // It tells of all the others.
    builder.addFirmwareConfiguration(pci)
    return Inventory(
      nodes: builder.nodes, ports: builder.ports, mmio: builder.mmio, pci: pci,
      lines: builder.lines, messages: builder.messages, doorbells: builder.doorbells,
      memoryHole: builder.memoryHole, balloon: builder.balloon, powerManagement: powerManagement,
      realTimeClock: clock, workers: builder.workers, stops: builder.stops)
  }

  // MARK: The devices

  /// Makes all that others don't depend on.
  private mutating func addDevices() throws {
    let console = makeConsole()
    addSerialPort(console)
    addKeyboard()
    add("exit", ExitPort(machine: control), at: Layout.exit)
    add("post", PostPort(), at: Layout.post)
    add("port92", SystemControlPortA(machine: control), at: Layout.systemControl)
    if let device = configuration.testDevice {
      addTestDevice(device)
    } else {
      add("debugcon", DebugConsole(sink: console), at: Layout.debugConsole)
    }
    try addFunction("host-bridge", .hostBridge(platform), at: PCIAddress(device: 0))
    try addIDE()
    for device in configuration.spec.devices { try add(device, console) }
    for (index, make) in configuration.pciDevices.enumerated() {
      try addFunction("pci\(index)", make(platform))
    }
  }

  /// Makes a device that the spec asks for.
  private mutating func add(_ device: VMConfiguration.Device, _ console: any ByteSink) throws {
    let resources = configuration.resources
    switch device.kind {
    case .disk(let disk): try add(disk, device)
    case .net(let net):
      guard let backEnd = resources.networks[device.id] else { return }
      try addVirtio(
        device,
        VirtioNet(
          backEnd, mac: configuration.mac(of: net, device.id),
          mtu: net.mtu ?? (net.isUser ? UserNetwork.mtu : nil), report: report))
    case .vsock(let vsock):
      guard let host = resources.vsocks[device.id] else { return }
      // Its data must not wait for what other devices do.
      try addVirtio(device, VirtioVsock(cid: vsock.cid, host: host), worker: "vsock")
    case .rng: try addVirtio(device, VirtioEntropy())
    case .balloon(let settings): try addBalloon(device, settings)
    case .virtioConsole: try addVirtioConsole(device, console)
    // It is there already, in the debug console's place.
    case .testDevice: break
    }
  }

  // MARK: Devices of more than a line

  private func makeConsole() -> any ByteSink {
    switch configuration.consoleOutput {
    case .none: NullSink()
    case .descriptor(let number):
      DescriptorSink(number, control, terminalLine: configuration.observation?.terminalLine)
    case .terminal(let number): DescriptorSink(number, control, dropsWhatNobodyReads: true)
    case .sink(let sink): sink
    }
  }

  private mutating func addSerialPort(_ console: any ByteSink) {
    let serial = UART16550A(
      line: line(Layout.serialInterrupt), sink: console, demand: input)
    if configuration.consoleInputDevice == .serial { input.receiver = serial }
    add(
      "serial0", serial, at: Layout.serial, interrupt: Layout.serialInterrupt, table: .serialPort)
  }

  private mutating func addKeyboard() {
    let keyboard = I8042(machine: control)
    add(
      "keyboard", "i8042",
      [
        .ports(Layout.keyboardData.range, keyboard.makeDataPort()),
        .ports(Layout.keyboardCommand.range, keyboard.makeCommandPort()),
      ], objects: [("", keyboard)])
  }

  /// The clock and the thread that waits for its interrupts, which know each other.
  private mutating func addClock() throws(MachineError) -> RealTimeClock {
    final class Ticking: Sendable {
      struct Reference { weak var clock: RealTimeClock? }
      let clock = Mutex(Reference())
    }
    let low = min(configuration.memorySize, GuestMemory.holeStart)
    let ticking = Ticking()
    let control = control
    let worker: Worker
    do throws(Errno) { worker = try Worker(name: "rtc") } catch {
      throw .host("can't make the clock: \(error)")
    }
    let timer = worker.makeTimer { ticking.clock.withLock { $0.clock }?.tick() }
    let clock = RealTimeClock(
      sizes: .init(
        ramBelow4GiB: low, ramAbove4GiB: configuration.memorySize - low,
        cpuCount: configuration.vcpuCount),
      line: line(Layout.realTimeClockInterrupt), now: { Clock.realtimeNanoseconds },
      schedule: { delay in
        do throws(Errno) {
          try timer.set(delay.map { Clock.monotonicNanoseconds &+ UInt64(max($0, 0)) })
        } catch { control.finish(.hostFailed("no thread for the clock: \(error)")) }
      })
    ticking.clock.withLock { $0.clock = clock }
    add(
      "rtc", clock.name, [.ports(Layout.realTimeClock.range, clock)],
      interrupts: [Layout.realTimeClockInterrupt], table: .realTimeClock,
      objects: [("", clock), ("timer", worker)])
    workers.append(worker)
    return clock
  }

  private mutating func addPowerManagement() -> PowerManagement {
    let device = PowerManagement(
      machine: control, line: line(Layout.systemControlInterrupt),
      now: { Clock.monotonicNanoseconds })
    add(
      "power", device, at: Layout.powerManagement, interrupt: Layout.systemControlInterrupt,
      table: .powerManagement)
    return device
  }

  private mutating func addTestDevice(_ node: VMConfiguration.Device) {
    let memory = platform.memory
    let interrupts = (0..<UInt32(Layout.testInterrupts.count)).map { $0 }
    let latch = TestDevice(flush: { memory.invalidateTranslations(ofPageAt: GuestAddress($0)) })
    let ports = TestInterruptPorts(lines: interrupts.map { line($0) })
    let scratch = TestMemory()
    let start = Layout.testMemory.value
    add(
      node.id, latch.name,
      [
        .ports(Layout.testDevice.range, latch), .ports(Layout.testInterrupts.range, ports),
        .memory(start...start + (TestMemory.size - 1), scratch),
      ], interrupts: interrupts,
      objects: [("", latch), ("interrupts", ports), ("memory", scratch)])
    memoryHole = Layout.videoMemory
  }

  private mutating func addBalloon(
    _ node: VMConfiguration.Device, _ settings: VMConfiguration.Balloon
  ) throws {
    let device = VirtioBalloon(memory: platform.memory, target: settings.target)
    try addVirtio(node, device)
    balloon = device
  }

  private mutating func addVirtioConsole(
    _ node: VMConfiguration.Device, _ console: any ByteSink
  ) throws {
    let device = VirtioConsole(sink: console, demand: input)
    if configuration.consoleInputDevice == .virtio { input.receiver = device }
    try addVirtio(node, device)
  }

  private mutating func addFirmwareConfiguration(_ pci: PCIBus) {
    // SeaBIOS takes this port for its console; there is no screen.
    var files = [
      FirmwareConfiguration.File(name: "etc/sercon-port", number: UInt64(Layout.serial.start))
    ]
    if configuration.image.isFirmware {
      files += FirmwareTables(nodes, pci, cpuid, vcpuCount: configuration.vcpuCount).files
    }
    let device = FirmwareConfiguration(
      ramSize: configuration.memorySize, cpuCount: configuration.vcpuCount, files: files)
    add("fw-cfg", device, at: Layout.firmwareConfiguration)
  }
}
