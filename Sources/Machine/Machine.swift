import Boot
import Devices
import Host
import KVM
import Memory

/// A virtual machine with its devices and its image, ready to run once.
public final class Machine {
  /// Ends the run from outside.
  public let control: RunControl
  /// The guest's memory.
  public let memory: GuestMemory
  /// What was found in the image.
  public let format: ImageFormat
  /// What was counted; there once a run with an observation is over.
  public private(set) var statistics: RunStatistics?

  let configuration: Configuration
  let vm: VM
  let runners: [VCPURunner]
  let recorders: [Recorder]
  let trace: TraceSinks?
  let parking: Parking
  let input: InputPump

  /// Makes the machine: opens /dev/kvm, reserves memory, loads the image, sets up VCPUs and devices.
  public init(_ configuration: Configuration) throws(MachineError) {
    try Self.check(configuration)
    let image = configuration.image
    // The image is judged first: what is wrong with it can be said on any machine.
    let plan: BootPlan
    do {
      plan = try BootPlan(
        image: image.bytes, name: image.name, options: image.options, layout: Layout.boot,
        ramSize: configuration.memorySize)
    } catch { throw .boot(error) }
    let host = try Self.openKVM(vcpuCount: configuration.vcpuCount)
    do throws(Errno) {
      memory = try GuestMemory(ramSize: configuration.memorySize)
      control = try RunControl()
      input = try InputPump(configuration.consoleInput, control)
    } catch { throw .host("can't reserve \(configuration.memorySize >> 20) MiB of memory: \(error)") }
    do { try plan.load(into: memory) } catch { throw .host("\(error)") }

    self.configuration = configuration
    format = plan.format
    let trace = configuration.observation.map(TraceSinks.init)
    self.trace = trace
    parking = Parking(count: configuration.vcpuCount)
    do throws(KVMError) {
      vm = try Self.makeVM(host, memory)
      let buses = try Self.wire(configuration, vm, control, input, trace)
      let cpuid = try host.supportedCPUID()
      var runners: [VCPURunner] = []
      for id in 0..<configuration.vcpuCount {
        let vcpu = try vm.makeVCPU(id: id)
        try vcpu.setCPUID(Topology.cpuid(cpuid, id: id, count: configuration.vcpuCount))
        vcpu.setSynchronizesRegisters(host.value(of: .syncRegisters) != 0)
        if id == 0 { try vcpu.enter(plan.entry) }
        runners.append(
          VCPURunner(vcpu, memory, ports: buses.ports, mmio: buses.mmio, control, parking))
      }
      self.runners = runners
      recorders = trace.map { trace in runners.map { _ in Recorder(trace) } } ?? []
    } catch { throw .kvm(KVMTrouble(error)) }
  }

  /// Runs the guest until the run ends, and says how it did. To be called once.
  ///
  /// The calling thread runs the event loop; each VCPU has a thread of its own.
  public func run() -> Outcome {
    let start = Clock.monotonicNanoseconds
    let outcome = EventLoop(self).run()
    if let trace {
      statistics = RunStatistics(self, elapsed: Clock.monotonicNanoseconds &- start)
      for sink in trace.sinks { sink.finish() }
    }
    return outcome
  }

  /// What keeps the trace from being whole, if anything does; known once the run is over.
  public var traceFailure: String? { trace?.sinks.compactMap(\.failure).first }

  // MARK: Making

  private static func check(_ configuration: Configuration) throws(MachineError) {
    let size = configuration.memorySize
    guard size >= GuestMemory.pageSize, size <= GuestMemory.largestSize,
      size % GuestMemory.pageSize == 0
    else {
      throw .configuration(
        "memory of \(size) bytes is impossible: give 4K to \(GuestMemory.largestSize >> 40)T, "
          + "in multiples of 4K")
    }
    guard configuration.vcpuCount >= 1 else {
      throw .configuration("a machine needs at least 1 VCPU, not \(configuration.vcpuCount)")
    }
    if let limit = configuration.timeLimit, !(limit > 0 && limit <= 1e9) {
      throw .configuration("a time limit of \(limit) s is impossible: give more than 0")
    }
  }

  private static func openKVM(vcpuCount: Int) throws(MachineError) -> System {
    let system = try explaining { () throws(KVMError) in try System() }
    let version = try explaining { () throws(KVMError) in try system.version() }
    guard version == System.apiVersion else {
      throw .kvm(.tooOld("version \(System.apiVersion) of the KVM API (it has \(version))"))
    }
    for (capability, name) in requiredCapabilities where system.value(of: capability) == 0 {
      throw .kvm(.tooOld(name))
    }
    let most = system.value(of: .maximumVCPUs)
    guard vcpuCount <= most else {
      throw .configuration("\(vcpuCount) VCPUs are too many: this machine's KVM allows \(most)")
    }
    return system
  }

  private static func explaining<Result: ~Copyable>(
    _ body: () throws(KVMError) -> Result
  ) throws(MachineError) -> Result {
    do { return try body() } catch { throw .kvm(KVMTrouble(error)) }
  }

  /// What no machine can do without.
  static let requiredCapabilities: [(Capability, String)] = [
    (.userMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (.irqchip, "interrupt controllers in the kernel (KVM_CAP_IRQCHIP)"),
    (.pit2, "a timer in the kernel (KVM_CAP_PIT2)"),
    (.immediateExit, "immediate_exit, Linux 4.13 (KVM_CAP_IMMEDIATE_EXIT)"),
  ]

  private static func makeVM(
    _ host: borrowing System, _ memory: GuestMemory
  ) throws(KVMError) -> VM {
    let vm = try host.makeVM()
    // Both matter to kvm_intel alone, which wants them before the first VCPU.
    try vm.setIdentityMapAddress(Layout.identityMap)
    try vm.setTSSAddress(Layout.taskState)
    try vm.makeIRQChip()
    try vm.makePIT()
    for (slot, region) in memory.regions.enumerated() {
      try vm.setMemory(slot: UInt32(slot), region)
    }
    return vm
  }

  /// Makes the devices and puts them on the buses: one line each.
  private static func wire(
    _ configuration: Configuration, _ vm: VM, _ control: RunControl, _ input: InputPump,
    _ trace: TraceSinks?
  ) throws(KVMError) -> (ports: Bus, mmio: Bus) {
    let console: any ByteSink =
      switch configuration.consoleOutput {
      case .none: NullSink()
      case .descriptor(let number): DescriptorSink(number, control)
      case .sink(let sink): sink
      }
    let serialLine = KVMInterruptLine(vm, gsi: Layout.serialInterrupt, trace: trace)
    let serial = UART16550A(line: serialLine, sink: console, demand: input)
    input.receiver = serial
    let keyboard = I8042(machine: control)
    let low = min(configuration.memorySize, GuestMemory.holeStart)
    let sizes = RealTimeClock.MachineSizes(
      ramBelow4GiB: low, ramAbove4GiB: configuration.memorySize - low,
      cpuCount: configuration.vcpuCount)
    var ports = Bus()
    ports.add(serial, at: Layout.serial)
    ports.add(DebugConsole(sink: console), at: Layout.debugConsole)
    ports.add(ExitPort(machine: control), at: Layout.exit)
    ports.add(PostPort(), at: Layout.post)
    ports.add(
      RealTimeClock(sizes: sizes, now: { Clock.realtimeNanoseconds }), at: Layout.realTimeClock)
    ports.add(keyboard.makeDataPort(), at: Layout.keyboardData)
    ports.add(keyboard.makeCommandPort(), at: Layout.keyboardCommand)
    ports.add(SystemControlPortA(machine: control), at: Layout.systemControl)
    ports.add(ResetControl(machine: control), at: Layout.resetControl)
    return (ports, Bus())
  }
}

extension Bus {
  /// Puts `device` at `ports`; the layout is ours, so an overlap is a mistake of kvmlite's own.
  fileprivate mutating func add(_ device: any Device, at ports: Layout.Ports) {
    do {
      try add(device, at: UInt64(ports.start), count: UInt64(ports.count))
    } catch { preconditionFailure("\(error)") }
  }
}

extension RunStatistics {
  /// Adds up what the machine's recorders and KVM counted.
  fileprivate init(_ machine: Machine, elapsed: UInt64) {
    self.elapsed = elapsed
    vcpuCount = machine.runners.count
    memorySize = machine.memory.ramSize
    touchedMemory = machine.memory.touchedBytes()
    for recorder in machine.recorders { exits.add(recorder.statistics) }
    var sums: [String: UInt64] = [:]
    var order: [String] = []
    let sources = machine.runners.map { try? $0.vcpu.statistics() } + [try? machine.vm.statistics()]
    for source in sources {
      for (name, value) in (try? source?.values()) ?? [] where value != 0 {
        if sums[name] == nil { order.append(name) }
        sums[name, default: 0] &+= value
      }
    }
    kernel = order.map { ($0, sums[$0] ?? 0) }
  }
}
