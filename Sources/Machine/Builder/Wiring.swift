import Devices
import Host
import KVM
import Memory
import Synchronization

/// A machine's devices on their buses: one line each.
struct Wiring {
  private(set) var ports = Bus()
  private(set) var mmio = Bus()
  /// The interrupt inputs that devices drive.
  private(set) var lines: [KVMInterruptLine]
  /// The PCI bus.
  let pci: PCIBus
  /// The ways of its functions' messages, and of what guests ring.
  let messages = KVMMessageRouter()
  let doorbells = KVMDoorbells()
  /// The IDE controller, where a disk is on it.
  let ide: IDEController?
  /// Addresses where the guest finds no RAM though there is some: for the test device.
  private(set) var memoryHole: Range<UInt64> = 0..<0
  /// The virtio devices, some of them on the PCI bus.
  let virtio: VirtioDevices
  /// ACPI's registers, to press the power button.
  let powerManagement: PowerManagement
  /// The clock, whose alarm wakes a suspended machine.
  let realTimeClock: RealTimeClock
  /// What devices have to tell.
  let reports: DeviceReports
  /// Waits for its interrupts.
  let clockWorker: Worker

  init(
    _ configuration: Configuration, _ control: RunControl, _ input: InputPump,
    _ trace: TraceSinks?, _ memory: GuestMemory, addressBits: Int
  ) throws(MachineError) {
    let console: any ByteSink =
      switch configuration.consoleOutput {
      case .none: NullSink()
      case .descriptor(let number):
        DescriptorSink(
          number, control, terminalLine: configuration.observation?.terminalLine)
      case .terminal(let number): DescriptorSink(number, control, dropsWhatNobodyReads: true)
      case .sink(let sink): sink
      }
    let serialLine = KVMInterruptLine(gsi: Layout.serialInterrupt, trace: trace)
    let serial = UART16550A(line: serialLine, sink: console, demand: input)
    if configuration.consoleInputDevice == .serial { input.receiver = serial }
    let keyboard = I8042(machine: control)
    let low = min(configuration.memorySize, GuestMemory.holeStart)
    let sizes = RealTimeClock.MachineSizes(
      ramBelow4GiB: low, ramAbove4GiB: configuration.memorySize - low,
      cpuCount: configuration.vcpuCount)
    let clockLine = KVMInterruptLine(gsi: Layout.realTimeClockInterrupt, trace: trace)
    (realTimeClock, clockWorker) = try Self.makeClock(sizes, clockLine, control)
    let sciLine = KVMInterruptLine(gsi: Layout.systemControlInterrupt, trace: trace)
    powerManagement = PowerManagement(
      machine: control, line: sciLine, now: { Clock.monotonicNanoseconds })
    // SeaBIOS takes this port for its console; there is no screen.
    let serialConsole = FirmwareConfiguration.File(
      name: "etc/sercon-port", number: UInt64(Layout.serial.start))
    let firmware = FirmwareConfiguration(
      ramSize: configuration.memorySize, cpuCount: configuration.vcpuCount, files: [serialConsole])
    let platform = PCIPlatform(memory: memory, doorbells: doorbells, messages: messages)
    var pciWiring: PCIWiring
    do throws(Errno) { pciWiring = try PCIWiring(platform, trace) } catch {
      throw .host("can't make the PCI bus: \(error)")
    }
    let ideWiring = try IDEWiring(configuration, &pciWiring, trace)
    ide = ideWiring?.controller
    do throws(Errno) { reports = try DeviceReports() } catch {
      throw .host("can't listen to the devices: \(error)")
    }
    virtio = try VirtioDevices(
      configuration, &pciWiring, console: console, input, trace, reports)
    pci = try Self.makePCI(configuration, pciWiring, addressBits: addressBits)
    lines =
      [serialLine, clockLine, sciLine] + pciWiring.lines + (ideWiring?.lines ?? [])
      + virtio.mmio.map(\.line)
    ports.add(serial, at: Layout.serial)
    ports.add(ExitPort(machine: control), at: Layout.exit)
    ports.add(PostPort(), at: Layout.post)
    ports.add(realTimeClock, at: Layout.realTimeClock)
    ports.add(keyboard.makeDataPort(), at: Layout.keyboardData)
    ports.add(keyboard.makeCommandPort(), at: Layout.keyboardCommand)
    ports.add(SystemControlPortA(machine: control), at: Layout.systemControl)
    ports.add(powerManagement, at: Layout.powerManagement)
    addPCI(ResetControl(machine: control))
    for place in virtio.mmio { mmio.add(place.device, at: place.start, count: VirtioMMIO.size) }
    ports.add(firmware, at: Layout.firmwareConfiguration)
    if let ide { addIDE(ide) }
    if configuration.devices.contains(.testDevice) {
      addTestDevice(memory, trace)
    } else {
      ports.add(DebugConsole(sink: console), at: Layout.debugConsole)
    }
  }

  /// The clock and the thread that waits for its interrupts, which know each other.
  private static func makeClock(
    _ sizes: RealTimeClock.MachineSizes, _ line: KVMInterruptLine, _ control: RunControl
  ) throws(MachineError) -> (RealTimeClock, Worker) {
    let ticking = Ticking()
    let worker: Worker
    do throws(Errno) { worker = try Worker(name: "rtc") } catch {
      throw .host("can't make the clock: \(error)")
    }
    let timer = worker.makeTimer { ticking.clock.withLock { $0.clock }?.tick() }
    let clock = RealTimeClock(
      sizes: sizes, line: line, now: { Clock.realtimeNanoseconds },
      schedule: { delay in
        do throws(Errno) {
          try timer.set(delay.map { Clock.monotonicNanoseconds &+ UInt64(max($0, 0)) })
        } catch { control.finish(.hostFailed("no thread for the clock: \(error)")) }
      })
    ticking.clock.withLock { $0.clock = clock }
    return (clock, worker)
  }

  private final class Ticking: Sendable {
    struct Reference {
      weak var clock: RealTimeClock?
    }

    let clock = Mutex(Reference())
  }

  /// The bus with `pci`'s functions and those that `configuration` asks for besides.
  private static func makePCI(
    _ configuration: Configuration, _ pci: PCIWiring, addressBits: Int
  ) throws(MachineError) -> PCIBus {
    var pci = pci
    for make in configuration.pciDevices {
      let function: PCIFunction
      do throws(Errno) { function = try make(pci.platform) } catch {
        throw .host("can't make a PCI device: \(error)")
      }
      try pci.add(function)
    }
    let bus = pci.makeBus(ramSize: configuration.memorySize, addressBits: addressBits)
    // Firmware does it itself.
    if !configuration.image.isFirmware { bus.assign(interrupt: PCIWiring.isaInterrupt) }
    return bus
  }

  private mutating func addIDE(_ ide: IDEController) {
    for (block, place) in zip(ide.commandBlocks, Layout.ideCommand) { ports.add(block, at: place) }
    for (block, place) in zip(ide.controlBlocks, Layout.ideControl) { ports.add(block, at: place) }
  }

  private mutating func addPCI(_ reset: ResetControl) {
    ports.add(PCIConfigurationPorts(pci, reset: reset), at: Layout.pciConfiguration)
    let window = pci.windows.ports
    ports.add(
      pci.makePortWindow(),
      at: Layout.Ports(start: UInt16(window.start), count: UInt16(window.count)))
    mmio.add(
      PCIConfigurationMemory(pci), at: Layout.pciConfigurationMemory,
      count: PCIConfigurationMemory.size)
    let low = pci.windows.memory32
    mmio.add(pci.makeMemoryWindow(), at: GuestAddress(low.start), count: low.count)
    if let high = pci.windows.memory64, let device = pci.makeHighMemoryWindow() {
      mmio.add(device, at: GuestAddress(high.start), count: high.count)
    }
  }

  private mutating func addTestDevice(_ memory: GuestMemory, _ trace: TraceSinks?) {
    let testLines = (0..<UInt32(Layout.testInterrupts.count)).map {
      KVMInterruptLine(gsi: $0, trace: trace)
    }
    lines += testLines
    ports.add(
      TestDevice(flush: { memory.invalidateTranslations(ofPageAt: GuestAddress($0)) }),
      at: Layout.testDevice)
    ports.add(TestInterruptPorts(lines: testLines), at: Layout.testInterrupts)
    mmio.add(TestMemory(), at: Layout.testMemory, count: TestMemory.size)
    memoryHole = Layout.videoMemory
  }
}

extension Bus {
  // The layout is ours, so an overlap is a mistake of kvmlite's own.

  fileprivate mutating func add(_ device: any Device, at ports: Layout.Ports) {
    do {
      try add(device, at: UInt64(ports.start), count: UInt64(ports.count))
    } catch { preconditionFailure("\(error)") }
  }

  fileprivate mutating func add(
    _ device: any Device, at start: GuestAddress, count: UInt64 = GuestMemory.pageSize
  ) {
    do {
      try add(device, at: start.value, count: count)
    } catch { preconditionFailure("\(error)") }
  }
}
