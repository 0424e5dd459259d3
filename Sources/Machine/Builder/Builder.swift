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
  /// What it shall be, with each device's place.
  let spec: VMConfiguration
  let control: RunControl
  let input: InputPump
  let trace: TraceSinks?
  let cpuid: CPUID
  let platform: PCIPlatform
  let messages = KVMMessageRouter()
  let doorbells = KVMDoorbells()
  let reports: DeviceReports

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
  ) throws(MachineError) {
    do throws(Errno) { reports = try DeviceReports() } catch {
      throw .host("can't listen to the devices: \(error)")
    }
    do throws(SpecError) { spec = try configuration.spec.placed() } catch {
      throw .configuration(error.message)
    }
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
    var builder = try Builder(configuration, control, input, trace, memory, cpuid)
    let clock = try builder.addClock()
    let sci = SharedInterruptLine(builder.line(Layout.systemControlInterrupt))
    let powerManagement = builder.addPowerManagement(sci)
    let generation = builder.addGenerationID(sci)
    do { try builder.addDevices() } catch let error as MachineError { throw error } catch {
      throw .host("can't make the devices: \(error)")
    }
    let pci = builder.addPCIBus()
    // It tells of all the others.
    builder.addFirmwareConfiguration(pci)
    return Inventory(
      spec: builder.spec, nodes: builder.nodes, ports: builder.ports, mmio: builder.mmio, pci: pci,
      lines: builder.lines, messages: builder.messages, doorbells: builder.doorbells,
      memoryHole: builder.memoryHole, balloon: builder.balloon, powerManagement: powerManagement,
      generation: generation, realTimeClock: clock, reports: builder.reports,
      workers: builder.workers, stops: builder.stops
    )
  }

  // MARK: The devices

  /// Makes all that others don't depend on.
  private mutating func addDevices() throws {
    let console = makeConsole(configuration.consoleOutput)
    addSerialPort(console)
    addKeyboard()
    addStateless("exit", ExitPort(machine: control), at: Layout.exit)
    add("post", PostPort(), at: Layout.post)
    add("port92", SystemControlPortA(machine: control), at: Layout.systemControl)
    if !spec.devices.contains(where: { $0.kind == .testDevice }) {
      addStateless("debugcon", DebugConsole(sink: console), at: Layout.debugConsole)
    }
    try addFunction("host-bridge", .hostBridge(platform), at: PCIAddress(device: 0))
    try addIDE()
    for device in spec.devices { try add(device, console) }
    for (index, make) in configuration.resources.pciDevices.enumerated() {
      try addFunction("pci\(index)", make(platform))
    }
  }

  /// Makes what the spec asks for.
  private mutating func add(_ device: VMConfiguration.Device, _ console: any ByteSink) throws {
    switch device.kind {
    case .disk(let disk): try addVirtioDisk(device, disk)
    case .net(let net): try addNetwork(device, net)
    case .vsock(let vsock): try addVsock(device, vsock)
    case .rng: try addVirtio(device, VirtioEntropy())
    case .balloon(let settings): try addBalloon(device, settings)
    case .virtioConsole: try addVirtioConsole(device, console)
    case .testDevice: addTestDevice(device)
    }
  }

  // MARK: Devices of more than a line

  private func makeConsole(_ output: ConsoleOutput) -> any ByteSink {
    switch output {
    case .none: NullSink()
    case .descriptor(let number):
      DescriptorSink(number, control, terminalLine: configuration.observation?.terminalLine)
    case .terminal(let number): DescriptorSink(number, control, dropsWhatNobodyReads: true)
    case .sink(let sink): sink
    case .both(let one, let other): TwoSinks(makeConsole(one), makeConsole(other))
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
      ], stateful: [("", keyboard)])
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
      stateful: [("", clock)], pausable: [worker])
    workers.append(worker)
    return clock
  }

  private mutating func addPowerManagement(_ sci: SharedInterruptLine) -> PowerManagement {
    let device = PowerManagement(
      machine: control, line: sci.makeInput(),
      now: { Clock.monotonicNanoseconds })
    add(
      "power", device, at: Layout.powerManagement, interrupt: Layout.systemControlInterrupt,
      table: .powerManagement)
    return device
  }

  private mutating func addTestDevice(_ device: VMConfiguration.Device) {
    let memory = platform.memory
    let interrupts = (0..<UInt32(Layout.testInterrupts.count)).map { $0 }
    let latch = TestDevice(flush: { memory.invalidateTranslations(ofPageAt: GuestAddress($0)) })
    let ports = TestInterruptPorts(lines: interrupts.map { line($0) })
    let scratch = TestMemory()
    let start = Layout.testMemory.value
    add(
      device.id, latch.name,
      [
        .ports(Layout.testDevice.range, latch), .ports(Layout.testInterrupts.range, ports),
        .memory(start...start + (TestMemory.size - 1), scratch),
      ], interrupts: interrupts,
      stateful: [("", latch), ("interrupts", ports), ("memory", scratch)])
    memoryHole = Layout.videoMemory
  }

  private mutating func addNetwork(
    _ device: VMConfiguration.Device, _ net: VMConfiguration.Net
  ) throws {
    guard let backEnd = configuration.resources.networks[device.id] else { return }
    // An address that is the same each time, and no other card's of this machine.
    let index = spec.devices.filter { $0.kind.name == "net" }.firstIndex { $0.id == device.id } ?? 0
    let name = net.tap.map { "tap \($0)" } ?? "user \(index)"
    let card = try VirtioNet(
      backEnd, mac: net.mac ?? MACAddress(stableFor: name),
      mtu: net.mtu ?? (net.isUser ? UserNetwork.mtu : nil))
    try addVirtio(device, card)
  }

  private mutating func addVsock(
    _ device: VMConfiguration.Device, _ vsock: VMConfiguration.Vsock
  ) throws {
    guard let host = configuration.resources.vsocks[device.id] else { return }
    // Its data must not wait for what other devices do.
    try addVirtio(device, VirtioVsock(cid: vsock.cid, host: host), worker: "vsock")
  }

  private mutating func addBalloon(
    _ device: VMConfiguration.Device, _ settings: VMConfiguration.Balloon
  ) throws {
    let balloon = VirtioBalloon(memory: platform.memory, target: settings.target)
    try addVirtio(device, balloon)
    self.balloon = balloon
  }

  private mutating func addVirtioConsole(
    _ device: VMConfiguration.Device, _ sink: any ByteSink
  ) throws {
    let console = VirtioConsole(sink: sink, demand: input)
    if configuration.consoleInputDevice == .virtio { input.receiver = console }
    try addVirtio(device, console)
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
