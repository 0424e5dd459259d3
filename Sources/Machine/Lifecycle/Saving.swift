import Devices
import Host
import KVM
import Memory

/// Taking a machine's state out, and putting it back into another one.
extension Machine {
  /// The state of all but memory, and how its run ended. The machine must stand still: called by
  /// `Command.inspect`.
  package func save(end: String? = nil) throws(SaveError) -> SavedMachine {
    guard commands.state != .ended else { throw .hasEnded }
    if let what = inventory.spec.unsavable { throw .unsavable(what) }
    typealias Name = SavedMachine.Name
    var sections: [SavedMachine.Section] = []
    func add(_ name: String, _ bytes: [UInt8]) {
      sections.append(.init(name: name, version: Name.version, bytes: bytes))
    }
    add(Name.spec, Array(inventory.spec.json.text.utf8))
    for node in inventory.nodes {
      for part in node.stateful {
        var state = StateWriter()
        part.device.save(to: &state)
        add(Name.device(part.name), state.bytes)
      }
    }
    var state = StateWriter()
    do { try EngineState(of: engine, cpuids, host).save(to: &state) } catch {
      throw .kvm("\(error)")
    }
    add(Name.engine, state.bytes)
    // What was typed and the guest's device has not taken yet.
    add(Name.input, input.waiting)
    if isSuspended { add(Name.suspended, []) }
    if let end { add(Name.end, Array(end.utf8)) }
    return SavedMachine(sections: sections)
  }

  /// Makes a machine that goes on where `saved` stood, with its `memory`. What stands behind its devices
  /// must be as it was then. The image is only for resets. Its clocks go on where they stood, unless it
  /// `countsAbsence`: then so much time has passed for them as for the host.
  package convenience init(
    restoring saved: SavedMachine, _ memory: RestoredMemory, _ resources: Resources,
    _ options: RunOptions = RunOptions(), countsAbsence: Bool = false
  ) throws(RestoreError) {
    try saved.checkDisks(resources)
    try self.init(
      Configuration(saved.spec(), resources, options),
      Restoration(saved: saved, memory: memory, countsAbsence: countsAbsence))
  }

  /// What a machine goes on from instead of starting.
  struct Restoration {
    let saved: SavedMachine
    let memory: RestoredMemory
    let countsAbsence: Bool

    /// Puts devices' states into those of `inventory`, and returns the engine's, if this `host` can go on
    /// with it.
    func begin(_ inventory: Inventory, _ host: KVMHost) throws(RestoreError) -> EngineState {
      try saved.begin(inventory, host, countsAbsence: countsAbsence)
    }
  }
}

extension EventLoop {
  /// How long devices may take to stand still at the end, in nanoseconds.
  private static let keepPatience: UInt64 = 5_000_000_000

  /// Does what is to be done with a machine whose run is over.
  func keep() {
    guard let keep = machine.configuration.run.keep, let outcome = control.outcome else { return }
    standstill.begin(threads)
    let deadline = Clock.monotonicNanoseconds &+ Self.keepPatience
    while !standstill.advance(threads), Clock.monotonicNanoseconds < deadline {
      if poller.next(until: deadline) == Tag.control { control.event.consume() }
    }
    guard standstill.isStill else {
      machine.configuration.run.report?("a device doesn't stand still: the machine isn't saved")
      return
    }
    keep(machine, outcome)
  }
}

/// What is to be written of a machine that stands still.
package struct HeldMachine: Sendable {
  private let saved: SavedMachine
  private let memory: GuestMemory
  private let resources: Resources

  /// Takes the state of `machine`; if its run is over, `end` says how, for whoever looks at it later.
  package init(_ machine: Machine, end: String? = nil) throws(SaveError) {
    saved = try machine.save(end: end)
    (memory, resources) = (machine.memory, machine.configuration.resources)
  }

  /// Writes it to two open files, as `SavedFolder` has them, while it still stands.
  package func write(
    state: borrowing FileDescriptor, memory file: borrowing FileDescriptor, onto base: Onto? = nil
  ) throws(SaveError) {
    try SavedFolder.write(saved, memory, resources, state: state, memory: file, onto: base)
  }

  /// An earlier save, whose pages needn't be written again.
  package struct Onto: Sendable {
    /// Its folder, as the new one knows it.
    let path: String
    /// `state` and `memory`, and those of the saves that it was made onto.
    let files: [SharedDescriptor]

    package init(path: String, files: [SharedDescriptor]) {
      (self.path, self.files) = (path, files)
    }
  }
}

extension CommandQueue {
  /// Has the machine stand still, and calls `write` with it on a thread of its own, or with why not. It
  /// stands until `write` or somebody after it sends `release`, which is due in every case.
  package func save(_ write: @escaping @Sendable (Result<HeldMachine, SaveError>) -> Void) {
    let held = RankedMutex<Result<HeldMachine, SaveError>>(.last, .failure(.hasEnded))
    let take: @Sendable (Machine) -> Void = { machine in
      let result = Result { () throws(SaveError) in try HeldMachine(machine) }
      held.withLock { $0 = result }
    }
    send(.hold(take)) { _ in
      let result = held.withLock { $0 }
      do throws(Errno) { try HostThread.start(name: "save") { write(result) }.detach() } catch {
        write(.failure(.file(error)))
      }
    }
  }
}

extension SavedMachine {
  fileprivate func begin(
    _ inventory: Inventory, _ host: KVMHost, countsAbsence: Bool
  ) throws(RestoreError) -> EngineState {
    let cpuids = try cpuids(inventory.spec, host)
    let state = try fields(Name.engine)
    try inventory.hold()
    try inventory.restore(from: self)
    let absence = try countsAbsence ? countAbsence(inventory.realTimeClock) : 0
    let extent: ProcessorState.Extent
    do { extent = try .init(host.system) } catch { throw .machine(.kvm(error)) }
    do {
      var engine = try EngineState(from: state, cpuids, extent)
      engine.clock &+= absence
      return engine
    } catch { throw .section(Name.engine, error) }
  }

  /// Has `clock` go on as if the machine had run all the time; returns for how many nanoseconds it hasn't.
  private func countAbsence(_ clock: RealTimeClock) throws(RestoreError) -> UInt64 {
    let name = Name.device("rtc")
    let state = try fields(name)
    do { return try clock.restore(from: state, countingAbsence: true) } catch {
      throw .section(name, error)
    }
  }
}

extension SavedMachine {
  /// What CPUID answered on each VCPU, if this `host` can go on with that.
  func cpuids(_ spec: VMConfiguration, _ host: KVMHost) throws(RestoreError) -> [CPUID] {
    let state = try fields(Name.engine)
    let cpuids: [CPUID]
    do { cpuids = try EngineState.cpuids(from: state, vcpuCount: spec.vcpuCount) } catch {
      throw .section(Name.engine, error)
    }
    for (saved, here) in zip(cpuids, spec.cpu.cpuids(host, count: spec.vcpuCount)) {
      let lacks = saved.features(beyond: here)
      guard lacks.isEmpty else { throw .processor(lacks) }
    }
    return cpuids
  }
}

extension Engine.Start {
  /// What CPUID answered on each VCPU, where that was saved.
  var cpuids: [CPUID]? {
    guard case .restored(let state) = self else { return nil }
    return state.cpuids
  }
}

extension Inventory {
  /// How long devices that have done nothing yet may take to stand still, in nanoseconds.
  private static let patience: UInt64 = 5_000_000_000

  /// Who works for devices.
  var pausable: [any Pausable] { nodes.flatMap(\.pausable) }

  /// Lets no device work until it is resumed; for devices that are new.
  func hold() throws(RestoreError) {
    let pausable = pausable
    let busy = Guarded(pausable.count)
    for worker in pausable {
      worker.pause {
        busy.locked { $0 -= 1 }
        busy.wakeAll()
      }
    }
    let deadline = Clock.monotonicNanoseconds &+ Self.patience
    guard busy.waits(until: deadline, for: { $0 == 0 }) else {
      throw .machine(.host("a device doesn't stand still"))
    }
  }

  /// Draws a generation ID for a machine that starts. One that goes on with a copy of its memory is another
  /// generation, too, and the guest is told: the interrupt waits until it runs.
  func begin(_ memory: RestoredMemory?) throws(RestoreError) {
    guard memory?.isFork != false, let generation else { return }
    do throws(Errno) { try generation.draw() } catch {
      throw .machine(.host("no random numbers for the generation ID: \(error)"))
    }
    if memory != nil { generation.announce() }
  }

  /// Puts the state that `saved` has into each device. They hold still.
  func restore(from saved: SavedMachine) throws(RestoreError) {
    typealias Name = SavedMachine.Name
    var known: Set<String> = [
      Name.spec, Name.engine, Name.input, Name.memory, Name.disks,
      Name.origin, Name.base, Name.suspended, Name.end,
    ]
    for node in nodes {
      for part in node.stateful {
        let name = Name.device(part.name)
        let state = try saved.fields(name)
        do { try part.device.restore(from: state) } catch { throw .section(name, error) }
        known.insert(name)
      }
    }
    for section in saved.sections where !known.contains(section.name) {
      throw .unknown(section: section.name)
    }
  }
}
