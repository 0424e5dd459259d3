import Host
import Machine
import Memory
import Synchronization

/// A machine in this process, on threads that are confined.
final class LocalMachine: MachinePlace, @unchecked Sendable {
  // Sound as Sendable: before the run `machine` and `resources` are reached inside the lock of `life`
  // alone, and from its beginning on by the thread that runs the machine alone.

  private let console: VirtualMachine.Console
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

  /// Opens what `configuration` names but is not `given`, and makes the machine.
  init(
    _ configuration: VMConfiguration, _ given: Resources, _ options: RunOptions,
    _ console: VirtualMachine.Console, restoring saved: SavedFolder.Opened? = nil,
    report: @escaping @Sendable (String) -> Void
  ) throws(VirtualMachineError) {
    self.console = console
    let opened: Resources
    do throws(ResourceError) {
      opened = try ConfinedThreads.with { () throws(ResourceError) in
        try Resources(opening: configuration, besides: given) { report($0.description) }
      }
    } catch { throw VirtualMachineError(error) }
    do throws(VirtualMachineError) {
      let machine = try ConfinedThreads.with { () throws(VirtualMachineError) in
        try Self.make(configuration, opened, options, saved)
      }
      (commands, control) = (machine.commands, machine.control)
      (self.machine, resources) = (machine, opened)
    } catch {
      opened.close()
      throw error
    }
  }

  private static func make(
    _ configuration: VMConfiguration, _ resources: Resources, _ options: RunOptions,
    _ saved: SavedFolder.Opened?
  ) throws(VirtualMachineError) -> Machine {
    guard let saved else {
      do { return try Machine(configuration, resources, options) } catch {
        throw VirtualMachineError(error)
      }
    }
    do {
      return try Machine(restoring: saved.machine, .file(saved.memory), resources, options)
    } catch { throw VirtualMachineError(error, saved.path) }
  }

  func close() { resources?.close() }

  var state: MachineState { commands.state }

  // MARK: Running

  var hasBegun: Bool { life.withLock { $0.hasBegun } }

  func begin() -> Bool {
    life.withLock { life in
      defer { life.hasBegun = true }
      return !life.hasBegun
    }
  }

  func run() -> Outcome {
    let outcome = machine?.run() ?? .hostFailed("there is no machine to run")
    end()
    return outcome
  }

  /// Keeps what is left to be seen, lets go of all else, and tells those who wait.
  func end() {
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

  func stop() { control.stop(.user) }

  func waitForEnd() async {
    await withCheckedContinuation { continuation in
      let isOver = life.withLock { life in
        if life.remains == nil { life.waiting.append(continuation) }
        return life.remains != nil
      }
      if isOver { continuation.resume() }
    }
  }

  func send(_ command: Command) async throws(VirtualMachineError) {
    let answer = await withCheckedContinuation { continuation in
      commands.send(command) { answer in
        ConfinedThreads.wake { continuation.resume(returning: answer) }
      }
    }
    if case .failure(let error) = answer { throw VirtualMachineError(error) }
  }

  func save(
    state: SharedDescriptor, memory: SharedDescriptor, stays: Bool
  ) async throws(VirtualMachineError) {
    // Inside the lock: the run doesn't begin meanwhile.
    let early = life.withLock { life -> Result<Void, SaveError>? in
      guard !life.hasBegun, let machine else { return nil }
      return Result { () throws(SaveError) in
        try HeldMachine(machine).write(state: state.file, memory: memory.file)
      }
    }
    let result =
      if let early { early } else {
        await withCheckedContinuation { continuation in
          commands.save { [commands] held in
            let result = Result { () throws(SaveError) in
              try held.get().write(state: state.file, memory: memory.file)
            }
            if !stays || (try? result.get()) == nil { commands.send(.release) }
            ConfinedThreads.wake { continuation.resume(returning: result) }
          }
        }
      }
    do { try result.get() } catch { throw VirtualMachineError(.saved, "\(error)") }
  }

  // MARK: Looking

  func statistics() async -> RunStatistics {
    await look({ $0.statisticsNow() }, after: \.statistics)
  }

  func memory(at address: GuestAddress, count: Int) async -> [UInt8]? {
    let read: @Sendable (GuestMemory) -> [UInt8]? = { try? $0.read(count, at: address) }
    return await look({ read($0.memory) }, after: { read($0.memory) })
  }

  func registers(ofVCPU id: Int) async -> Registers? {
    await look({ $0.registers(ofVCPU: id) }, after: { Self.item(id, of: $0.registers) })
  }

  func specialRegisters(ofVCPU id: Int) async -> SpecialRegisters? {
    await look(
      { $0.specialRegisters(ofVCPU: id) }, after: { Self.item(id, of: $0.specialRegisters) })
  }

  private static func item<Item>(_ index: Int, of items: [Item?]) -> Item? {
    items.indices.contains(index) ? items[index] : nil
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
