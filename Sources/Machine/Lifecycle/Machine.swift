import ACPI
import Boot
import Devices
import Host
import KVM
import Memory

/// A virtual machine with its devices and its image, ready to run once.
package final class Machine {
  /// Ends the run from outside.
  package let control: RunControl
  /// The guest's memory.
  package let memory: GuestMemory
  /// Where the guest has it.
  package let memoryMap: MemoryMap
  /// What was found in the image.
  package let format: ImageFormat
  /// Whether that is an operating system's kernel.
  package var isKernel: Bool { format.isKernel && format != .firmware }
  /// What the kernel is told, if it is told anything.
  package let commandLine: String?
  /// What was counted; there once a run with an observation is over.
  package private(set) var statistics: RunStatistics?

  let configuration: Configuration
  let trace: TraceSinks?
  let input: InputPump
  private(set) var engine: Engine
  /// The devices, and what carries their words.
  package let inventory: Inventory
  private let tables: FirmwareTables
  let recorders: [Recorder]

  let host: KVMHost
  /// What CPUID answers on each VCPU, as long as there is the machine.
  let cpuids: [CPUID]
  private let plan: BootPlan
  /// Whether the guest has suspended it to RAM.
  var isSuspended = false
  /// Whether devices wait for the run, so as not to work in a machine that was restored and stands still.
  private let isHeld: Bool
  /// When the run began; 0 before.
  private var startTime: UInt64 = 0
  /// When it was over.
  private var endTime: UInt64?
  /// KVM's counters of an engine that was replaced.
  private var pastCounters: [(name: String, value: UInt64)] = []

  /// Makes the machine: opens /dev/kvm, reserves memory, loads the image, sets up VCPUs and devices.
  package convenience init(
    _ spec: VMConfiguration, _ resources: Resources, _ options: RunOptions = RunOptions()
  ) throws(MachineError) {
    try self.init(Configuration(spec, resources, options))
  }

  convenience init(_ configuration: Configuration) throws(MachineError) {
    do throws(RestoreError) { try self.init(configuration, nil) } catch {
      guard case .machine(let error) = error else { throw .host("\(error)") }
      throw error
    }
  }

  /// Makes the machine. It begins with its image's start, or where that of `restoration` stood.
  init(_ configuration: Configuration, _ restoration: Restoration?) throws(RestoreError) {
    // The image is judged first: what is wrong with it can be said on any machine.
    let plan: BootPlan
    do throws(MachineError) {
      try configuration.check()
      (plan, commandLine) = try Self.makePlan(configuration)
      host = try Self.openKVM(configuration)
    } catch { throw .machine(error) }
    let typed = try restoration?.saved.bytes(SavedMachine.Name.input) ?? []
    memory = try Self.makeMemory(configuration, plan, restoration)
    do throws(Errno) {
      control = try RunControl(keepsState: configuration.run.keep != nil)
      commands = try CommandQueue()
      input = try InputPump(configuration.consoleInput, control, after: typed)
      trace = try configuration.observation.map(TraceSinks.init)
    } catch { throw .machine(.host("can't make the machine: \(error)")) }
    self.configuration = configuration
    self.plan = plan
    format = plan.format
    entryMode = plan.entry.mode
    do throws(MachineError) {
      inventory = try Builder.build(configuration, control, input, trace, memory, host.cpuid)
    } catch { throw .machine(error) }
    if format.isLinux { input.receiver?.awaitDriver() }
    tables = FirmwareTables(
      inventory.nodes, inventory.pci, host.cpuid, vcpuCount: configuration.vcpuCount)
    memoryMap = MemoryMap(memory, hole: inventory.memoryHole)
    do throws(RestoreError) {
      let start = try Self.begin(plan, tables, restoration, inventory, memory, host)
      cpuids = start.cpuids ?? configuration.cpu.cpuids(host, count: configuration.vcpuCount)
      do throws(KVMError) {
        engine = try Engine(host.vm, host, memory, memoryMap, inventory, control, cpuids, start)
      } catch { throw .machine(.kvm(error)) }
      try inventory.begin(restoration?.memory)
    } catch {
      // Devices that were restored may have their threads.
      inventory.stop()
      throw error
    }
    isHeld = restoration != nil
    isSuspended = restoration?.saved.isSuspended ?? false
    if let trace {
      recorders = engine.runners.map { _ in Recorder(trace) }
    } else {
      recorders = []
    }
  }

  deinit {
    // Of a machine that was restored and never ran, too.
    if isHeld && commands.state == .created { inventory.stop() }
  }

  // MARK: Running

  /// What asks for something while it runs; `CommandQueue.state` says what it is doing.
  package let commands: CommandQueue

  /// Runs the guest until the run ends, and says how it did. A machine runs once.
  ///
  /// The calling thread runs the event loop; each VCPU has a thread of its own.
  package func run() -> Outcome {
    guard commands.begin() else { return .hostFailed("a machine runs once: this one has run") }
    if isHeld { for worker in inventory.pausable { worker.resume() } }
    startTime = Clock.monotonicNanoseconds
    let deadline =
      configuration.run.deadline
      ?? configuration.timeLimit.map { startTime &+ UInt64($0 * 1e9) }
    var server: ControlServer?
    do throws(Errno) {
      server = try ControlServer(configuration.run, for: commands)
      try EventLoop(self, deadline: deadline).run()
    } catch {
      control.finish(.hostFailed("can't start the virtual machine: \(error)"))
    }
    let outcome = control.outcome ?? .hostFailed("the run ended without a reason")
    stopDevices(outcome)
    commands.note(.ended)
    server?.stop()
    tellReports()
    for text in inventory.reports.summary() { configuration.run.report?(text) }
    endTime = Clock.monotonicNanoseconds
    if let trace {
      statistics = statisticsNow()
      trace.finish()
    }
    return outcome
  }

  /// Whether a device still waits for the host although the run is over: whoever is to end soon must not
  /// wait for its threads.
  package private(set) var leavesThreads = false

  /// How long devices may take to finish what they are at when somebody ends the run, in nanoseconds.
  private static let patience: UInt64 = 2_000_000_000

  private func stopDevices(_ outcome: Outcome) {
    guard outcome.isFromOutside else { return inventory.stop() }
    let hasStopped = Guarded(false)
    let stopper = try? HostThread.start(name: "stop") { [inventory] in
      inventory.stop()
      hasStopped.locked { $0 = true }
      hasStopped.wakeAll()
    }
    guard let stopper else { return inventory.stop() }
    let deadline = Clock.monotonicNanoseconds &+ Self.patience
    guard hasStopped.waits(until: deadline, for: { $0 }) else { return leavesThreads = true }
    stopper.join()
  }

  /// Tells what devices have reported.
  func tellReports() {
    for text in inventory.reports.drain() { configuration.run.report?(text) }
  }

  /// Does what a signal asks for.
  func take(_ signal: Signal) {
    switch signal {
    case .user1: control.requestLook()
    case .continued: configuration.run.didContinue?()
    default: control.stop(.signal(signal.number))
    }
  }

  // MARK: Starting anew

  /// What the first engine began with, and those after a reset do.
  var start: Engine.Start { .entry(plan.entry, plan.format) }

  /// Makes devices and what was loaded as they were at the start; the rest of RAM keeps its contents.
  /// Nothing moves.
  func reset() throws(GuestMemory.OutOfBounds) {
    // What was typed is not lost with the registers that held it.
    input.takeBack()
    inventory.reset()
    try plan.load(into: memory)
    try tables.write(for: plan, to: memory)
  }

  /// Replaces the engine, whose VCPUs have no threads, by one that begins with `start`.
  func replaceEngine(_ start: Engine.Start) throws(KVMError) {
    let new = try Engine(
      host.system.makeVM(), host, memory, memoryMap, inventory, control, cpuids, start)
    if trace != nil { pastCounters += counters(of: engine) }
    for (old, new) in zip(engine.runners, new.runners) { new.history = old.history }
    engine = new
  }

  /// Where the guest wants to go on after a suspension, by FACS (ACPI 6.5, 5.2.10): nil if it never
  /// said.
  var wakingVector: UInt32? {
    guard let start = plan.tables?.acpi.lowerBound,
      let table = try? memory.view(at: GuestAddress(start + ACPITables.facsOffset), count: 16),
      table.load(0, as: UInt32.self) == 0x5343_4146  // "FACS"
    else { return nil }
    let vector = table.load(12, as: UInt32.self)
    return vector != 0 && vector < Layout.firmwareEnd.value ? vector : nil
  }

  /// The mode that the image is entered in.
  package let entryMode: CPUMode
  /// How many VCPUs there are.
  package var vcpuCount: Int { configuration.vcpuCount }
  /// Which features they have.
  package var cpu: CPUModel { configuration.cpu }

  /// The balloon, if the machine has one: to ask the guest for memory and to see what it gave.
  package var balloon: VirtioBalloon? { inventory.balloon }

  /// Segments and control registers of VCPU `id`, whose thread must not run; nil where there is no such
  /// VCPU or KVM doesn't give them.
  package func specialRegisters(ofVCPU id: Int) -> SpecialRegisters? {
    guard engine.runners.indices.contains(id) else { return nil }
    return try? engine.runners[id].vcpu.specialRegisters()
  }

  /// General registers, likewise.
  package func registers(ofVCPU id: Int) -> Registers? {
    guard engine.runners.indices.contains(id) else { return nil }
    return try? engine.runners[id].vcpu.registers()
  }

  /// What each VCPU has left the guest for.
  package var histories: [ExitHistory] { engine.runners.map(\.history) }

  /// What keeps the trace from being whole, if anything does; known once the run is over.
  package var traceFailure: String? { trace?.sinks.compactMap(\.failure).first }

  // MARK: Counting

  /// For how long it has run, or had when the run was over, in nanoseconds.
  package var elapsed: UInt64 {
    startTime == 0 ? 0 : (endTime ?? Clock.monotonicNanoseconds) &- startTime
  }

  /// What was counted so far; the machine doesn't run. Exits are counted for an observation only.
  package func statisticsNow() -> RunStatistics {
    var statistics = RunStatistics()
    statistics.elapsed = elapsed
    statistics.vcpuCount = configuration.vcpuCount
    statistics.memorySize = memory.ramSize
    statistics.touchedMemory = memory.touchedBytes()
    statistics.devices = inventory.nodes.flatMap { $0.statistics() }
    for recorder in recorders { statistics.exits.add(recorder.statistics) }
    statistics.kernel = Self.sum(pastCounters + counters(of: engine))
    return statistics
  }

  private func counters(of engine: Engine) -> [(name: String, value: UInt64)] {
    let sources = engine.runners.map { try? $0.vcpu.statistics() } + [try? engine.vm.statistics()]
    return sources.flatMap { (try? $0?.values()) ?? [] }
  }

  /// Adds up counters of one name, keeps the order, and leaves out those that are zero.
  private static func sum(
    _ counters: [(name: String, value: UInt64)]
  ) -> [(name: String, value: UInt64)] {
    var sums: [String: UInt64] = [:]
    var order: [String] = []
    for (name, value) in counters where value != 0 {
      if sums[name] == nil { order.append(name) }
      sums[name, default: 0] &+= value
    }
    return order.map { ($0, sums[$0] ?? 0) }
  }

  // MARK: Making

  private static func makePlan(
    _ configuration: Configuration
  ) throws(MachineError) -> (plan: BootPlan, commandLine: String?) {
    let image = configuration.image
    do throws(BootError) {
      let format: ImageFormat =
        image.isFirmware ? .firmware : try ImageFormat(of: image.bytes, name: image.name)
      var options = image.options
      options.commandLine = KernelCommandLine.complete(options.commandLine, for: format)
      let plan =
        if image.isFirmware {
          try BootPlan(
            firmware: BootFile(image.bytes, name: image.name), ramSize: configuration.memorySize)
        } else {
          try BootPlan(
            image: image.bytes, name: image.name, options: options, layout: Layout.boot,
            ramSize: configuration.memorySize,
            tables: FirmwareTables.room(vcpuCount: configuration.vcpuCount))
        }
      return (plan, options.commandLine)
    } catch { throw .boot(error) }
  }

  private static func makeMemory(
    _ configuration: Configuration, _ plan: BootPlan, _ restoration: Restoration?
  ) throws(RestoreError) -> GuestMemory {
    let (size, isShareable) = (configuration.memorySize, configuration.sharesMemory)
    if let restoration {
      return try restoration.memory.memory(size: size, isShareable: isShareable)
    }
    do {
      return try GuestMemory(
        ramSize: size, roms: plan.readOnlyMemory, isShareable: isShareable)
    } catch { throw .machine(.host("can't reserve \(size >> 20) MiB of memory: \(error)")) }
  }

  /// Fills memory for the start that `plan` says, or devices from `restoration`; returns how the engine
  /// begins.
  private static func begin(
    _ plan: BootPlan, _ tables: FirmwareTables, _ restoration: Restoration?, _ inventory: Inventory,
    _ memory: GuestMemory, _ host: KVMHost
  ) throws(RestoreError) -> Engine.Start {
    guard let restoration else {
      do {
        try plan.load(into: memory)
        try tables.write(for: plan, to: memory)
      } catch { throw .machine(.host("\(error)")) }
      return .entry(plan.entry, plan.format)
    }
    return .restored(try restoration.begin(inventory, host))
  }

  private static func openKVM(_ configuration: Configuration) throws(MachineError) -> KVMHost {
    let vcpuCount = configuration.vcpuCount
    let host: KVMHost
    do throws(KVMError) {
      host =
        switch configuration.resources.kvm {
        case .opened(let opened): opened
        case .refused(let error): throw error
        case nil: try KVMHost()
        }
    } catch { throw .kvm(error) }
    for (capability, name) in Capability.required where host.system.value(of: capability) == 0 {
      throw .lacking(name)
    }
    let most = host.system.value(of: .maximumVCPUs)
    guard vcpuCount <= most else {
      throw .configuration("\(vcpuCount) VCPUs are too many: this machine's KVM allows \(most)")
    }
    return host
  }
}
