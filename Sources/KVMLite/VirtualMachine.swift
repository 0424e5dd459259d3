import Doctor
import Host
import Machine
public import Memory
import Synchronization

/// A virtual machine, to be run once.
///
/// It prints nothing and leaves the process's signals alone, but for `SIGRTMIN` + 4, by which it stops
/// its own threads. They alone are confined, by filters of system calls (seccomp(2)), unless the
/// environment's `KVMLITE_SANDBOX` is `off`. Everything here may be called from any task or thread.
public final class VirtualMachine: @unchecked Sendable {
  // Sound as Sendable: before the run `machine` and `resources` are reached inside the lock of `life`
  // alone, and from its beginning on by the thread that runs the machine alone.

  /// What the guest prints, and what is typed for it.
  public let console: Console

  private let commands: CommandQueue
  private let control: RunControl
  /// Let go at the end, so that disks are free for others.
  private var machine: Machine?
  private var resources: Resources?
  private let life = Mutex(Life())

  private struct Life {
    var hasBegun = false
    /// What is left to be seen, once all else is gone.
    var remains: Remains?
    /// Who waits for that.
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  /// What can be seen of a machine that has ended.
  private struct Remains: Sendable {
    let statistics: RunStatistics
    let memory: GuestMemory
    let registers: [Registers?]
    let specialRegisters: [SpecialRegisters?]

    init(_ machine: Machine) {
      statistics = machine.statisticsNow()
      memory = machine.memory
      let vcpus = 0..<machine.vcpuCount
      registers = vcpus.map { machine.registers(ofVCPU: $0) }
      specialRegisters = vcpus.map { machine.specialRegisters(ofVCPU: $0) }
    }
  }

  /// Makes the machine that `configuration` describes: opens what it names, reserves memory, loads the
  /// image.
  ///
  /// `image` is the image's contents, instead of the file that the configuration names. Where the
  /// configuration has the console at standard input and output, it is `console` instead.
  ///
  /// After `timeLimit` the run ends with `.timedOut`. A reset that the guest asks for ends the run,
  /// unless `restartsAtReset`. `countsExits` lets `statistics` have them, which makes each a little
  /// slower. `report` gets a sentence, from any thread, when something behind a device is in trouble.
  public init(
    _ configuration: VMConfiguration, image: [UInt8]? = nil, timeLimit: Duration? = nil,
    restartsAtReset: Bool = false, countsExits: Bool = false,
    report: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(VirtualMachineError) {
    do throws(Errno) { console = try Console() } catch {
      throw VirtualMachineError(.host, "a console can't be made: \(error)")
    }
    var given = Resources(image: image.map { .init($0) })
    if let first = configuration.consoles.first, first.path == nil, !first.isTerminal {
      given.console = .init(output: .sink(console.log), input: .queue(console.queue))
    }
    var options = RunOptions(timeLimit: timeLimit.map { $0 / .seconds(1) })
    options.restartsAtReset = restartsAtReset
    options.observation = countsExits ? Observation() : nil
    let tell: @Sendable (String) -> Void = { text in ConfinedThreads.tell { report(text) } }
    options.report = tell
    let opened: Resources
    do throws(ResourceError) {
      opened = try ConfinedThreads.with { () throws(ResourceError) in
        try Resources(opening: configuration, besides: given, report: tell)
      }
    } catch { throw VirtualMachineError(error) }
    do throws(MachineError) {
      let machine = try ConfinedThreads.with { () throws(MachineError) in
        try Machine(configuration, opened, options)
      }
      (commands, control) = (machine.commands, machine.control)
      (self.machine, resources) = (machine, opened)
    } catch {
      opened.close()
      throw VirtualMachineError(error)
    }
    ConsoleWitness.current?.see(console)
  }

  deinit {
    resources?.close()
    console.log.end()
  }

  /// Why no machine can run on this host, with what mends it; nil where they can. For tests:
  /// `.enabled(if: VirtualMachine.unavailability == nil)`.
  public static let unavailability: String? = HostReport.make().trouble?.description

  // MARK: Running

  /// Runs the machine to its end. A cancelled task stops it.
  ///
  /// It runs on threads of its own, each VCPU on one: Swift's stay free for other tasks. Throws if it
  /// has been run before.
  public func run() async throws(VirtualMachineError) -> Outcome {
    try begin()
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        do throws(Errno) {
          try ConfinedThreads.start("machine") {
            let outcome = self.runToEnd()
            // What was reported comes before.
            ConfinedThreads.tell { continuation.resume(returning: outcome) }
          }
        } catch {
          end()
          continuation.resume(returning: .hostFailed("a thread can't be started: \(error)"))
        }
      }
    } onCancel: {
      control.stop(.user)
    }
  }

  /// The same on the calling thread, which waits; not for tasks.
  public func runBlocking() throws(VirtualMachineError) -> Outcome {
    try begin()
    defer { ConfinedThreads.finishTelling() }
    return ConfinedThreads.with { runToEnd() }
  }

  private func begin() throws(VirtualMachineError) {
    let isFirst = life.withLock { life in
      defer { life.hasBegun = true }
      return !life.hasBegun
    }
    guard isFirst else {
      throw VirtualMachineError(.hasRun, "a machine runs once, and this one has: make another")
    }
  }

  private func runToEnd() -> Outcome {
    let outcome = machine?.run() ?? .hostFailed("there is no machine to run")
    end()
    return outcome
  }

  /// Keeps what is left to be seen, lets go of all else, and tells those who wait.
  private func end() {
    let remains = machine.map(Remains.init)
    resources?.close()
    (machine, resources) = (nil, nil)
    console.log.end()
    let waiting = life.withLock { life in
      life.remains = remains
      defer { life.waiting = [] }
      return life.waiting
    }
    ConfinedThreads.wake { for continuation in waiting { continuation.resume() } }
  }

  /// What it is doing now.
  public var state: MachineState { commands.state }

  // MARK: Commands

  // Each waits for the run to begin, and throws when that is over.

  /// Brings the machine to stand still, with nothing in flight, until `resume()`.
  public func pause() async throws(VirtualMachineError) { try await send(.pause) }

  /// Lets the machine go on. Throws if it isn't paused.
  public func resume() async throws(VirtualMachineError) { try await send(.resume) }

  /// Starts the machine anew, as by the reset button; RAM keeps what the image doesn't cover.
  public func reset() async throws(VirtualMachineError) { try await send(.reset) }

  /// Presses the power button: what follows is the guest's decision.
  public func requestPowerOff() async throws(VirtualMachineError) { try await send(.powerButton) }

  /// Ends the run, which returns `.stopped`, and waits until it is over. A machine that has not been
  /// run will end at once.
  public func stop() async {
    control.stop(.user)
    if life.withLock({ $0.hasBegun }) { await waitForEnd() }
  }

  private func waitForEnd() async {
    await withCheckedContinuation { continuation in
      let isOver = life.withLock { life in
        if life.remains == nil { life.waiting.append(continuation) }
        return life.remains != nil
      }
      if isOver { continuation.resume() }
    }
  }

  private func send(_ command: Command) async throws(VirtualMachineError) {
    let answer = await withCheckedContinuation { continuation in
      commands.send(command) { answer in
        ConfinedThreads.wake { continuation.resume(returning: answer) }
      }
    }
    if case .failure(let error) = answer { throw VirtualMachineError(error) }
  }

  // MARK: Looking

  // Each look stops a machine that runs for a moment, and may be taken before and after the run, too.

  /// What was counted so far.
  public var statistics: RunStatistics {
    get async { await look({ $0.statisticsNow() }, after: \.statistics) }
  }

  /// `count` bytes of the guest's memory from the physical address `address` on.
  public func memory(
    at address: GuestAddress, count: Int
  ) async throws(VirtualMachineError) -> [UInt8] {
    let read: @Sendable (GuestMemory) -> [UInt8]? = {
      count < 0 ? nil : try? $0.read(count, at: address)
    }
    guard let bytes = await look({ read($0.memory) }, after: { read($0.memory) }) else {
      throw VirtualMachineError(
        .nothingThere, "the guest has no memory for \(count) bytes at \(hex(address.value))")
    }
    return bytes
  }

  /// The general registers of a VCPU.
  public func registers(ofVCPU id: Int = 0) async throws(VirtualMachineError) -> Registers {
    let registers = await look(
      { $0.registers(ofVCPU: id) }, after: { Self.item(id, of: $0.registers) })
    guard let registers else { throw Self.noRegisters(id) }
    return registers
  }

  /// Segments and control registers of a VCPU.
  public func specialRegisters(
    ofVCPU id: Int = 0
  ) async throws(VirtualMachineError) -> SpecialRegisters {
    let registers = await look(
      { $0.specialRegisters(ofVCPU: id) }, after: { Self.item(id, of: $0.specialRegisters) })
    guard let registers else { throw Self.noRegisters(id) }
    return registers
  }

  private static func item<Item>(_ index: Int, of items: [Item?]) -> Item? {
    items.indices.contains(index) ? items[index] : nil
  }

  private static func noRegisters(_ id: Int) -> VirtualMachineError {
    VirtualMachineError(.nothingThere, "VCPU \(id) has no registers to show")
  }

  /// What `body` sees in a machine that stands still, or `after` in what is left of it.
  private func look<Value: Sendable>(
    _ body: @escaping @Sendable (Machine) -> Value, after: (Remains) -> Value
  ) async -> Value {
    while true {
      let early = life.withLock { life -> Value? in
        if let remains = life.remains { return after(remains) }
        return life.hasBegun ? nil : machine.map(body)
      }
      if let early { return early }
      let found = Guarded<Value?>(nil)
      await withCheckedContinuation { continuation in
        commands.send(
          .inspect { machine in
            let value = body(machine)
            found.locked { $0 = value }
          }
        ) { _ in ConfinedThreads.wake { continuation.resume() } }
      }
      if let value = found.locked({ $0 }) { return value }
      // The run has ended meanwhile: the remains come when all its threads are gone.
      await waitForEnd()
    }
  }
}
