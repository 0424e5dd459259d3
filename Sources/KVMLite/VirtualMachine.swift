import Doctor
import Host
import Machine
public import Memory
import Synchronization

/// A virtual machine, to be run once.
///
/// It prints nothing and leaves the process's signals alone, but for `SIGRTMIN` + 4, by which it stops
/// its own threads. Everything here may be called from any task or thread.
public final class VirtualMachine: Sendable {
  /// What keeps a guest that breaks out of its machine from the rest.
  public enum Isolation: Sendable {
    /// The machine's threads are confined, by filters of system calls (seccomp(2)), unless the
    /// environment's `KVMLITE_SANDBOX` is `off`; the process is not.
    case threads
    /// The machine is in a process of its own: a kvmlite, which confines itself wholly (docs/security.md)
    /// and ends with this one. `program` is its path, or a name that is looked for by `PATH`.
    case process(program: String = "kvmlite")
  }

  /// What the guest prints, and what is typed for it.
  public let console: Console

  private let place: any MachinePlace

  /// Makes the machine that `configuration` describes: opens what it names, reserves memory, loads the
  /// image.
  ///
  /// `image` is the image's contents, instead of the file that the configuration names. Where the
  /// configuration has the console at standard input and output, it is `console` instead.
  ///
  /// After `timeLimit` the run ends with `.timedOut`. A reset that the guest asks for ends the run,
  /// unless `restartsAtReset`. `countsExits` lets `statistics` have them, which makes each a little
  /// slower. `report` gets a sentence, on a thread of its own, when something behind a device is in
  /// trouble.
  public convenience init(
    _ configuration: VMConfiguration, image: [UInt8]? = nil, timeLimit: Duration? = nil,
    restartsAtReset: Bool = false, countsExits: Bool = false, isolation: Isolation = .threads,
    report: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(VirtualMachineError) {
    try self.init(
      configuration, nil, image, timeLimit, restartsAtReset, countsExits, isolation, report)
  }

  /// Makes a machine that goes on where the one stood that was saved to `folder`, by `save(to:stops:)` or
  /// `kvmlite save`; the rest is as above. Its memory comes from there as it is touched: the folder isn't
  /// changed, and must stay as it is while the machine runs.
  public convenience init(
    restoring folder: String, timeLimit: Duration? = nil, restartsAtReset: Bool = false,
    countsExits: Bool = false, isolation: Isolation = .threads,
    report: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(VirtualMachineError) {
    let saved: SavedFolder.Opened
    let spec: VMConfiguration
    do throws(RestoreError) {
      saved = try SavedFolder.open(folder)
      spec = try saved.machine.spec()
    } catch { throw VirtualMachineError(error, folder) }
    try self.init(spec, saved, nil, timeLimit, restartsAtReset, countsExits, isolation, report)
  }

  private init(
    _ configuration: VMConfiguration, _ saved: SavedFolder.Opened?, _ image: [UInt8]?,
    _ timeLimit: Duration?, _ restartsAtReset: Bool, _ countsExits: Bool, _ isolation: Isolation,
    _ report: @escaping @Sendable (String) -> Void
  ) throws(VirtualMachineError) {
    do throws(Errno) { console = try Console() } catch {
      throw VirtualMachineError(.host, "a console can't be made: \(error)")
    }
    let tell: @Sendable (String) -> Void = { text in ConfinedThreads.tell { report(text) } }
    if case .process(let program) = isolation {
      let settings = MachineProcess.Settings(
        program: program, restartsAtReset: restartsAtReset, countsExits: countsExits,
        folder: saved?.path)
      place = try ChildMachine(
        configuration, image, settings, timeLimit: timeLimit, console, report: tell)
    } else {
      var given = Resources(image: image.map { .init($0) })
      if let first = configuration.consoles.first, first.path == nil, !first.isTerminal {
        given.console = .init(output: .sink(console.log), input: .queue(console.queue))
      }
      var options = RunOptions(timeLimit: timeLimit.map { $0 / .seconds(1) })
      options.restartsAtReset = restartsAtReset
      options.observation = countsExits ? Observation() : nil
      options.report = tell
      place = try LocalMachine(
        configuration, given, options, console, restoring: saved, report: tell)
    }
    ConsoleWitness.current?.see(console)
  }

  deinit {
    place.close()
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
            let outcome = self.place.run()
            // What was reported comes before.
            ConfinedThreads.tell { continuation.resume(returning: outcome) }
          }
        } catch {
          place.end()
          continuation.resume(returning: .hostFailed("a thread can't be started: \(error)"))
        }
      }
    } onCancel: {
      place.stop()
    }
  }

  /// The same on the calling thread, which waits; not for tasks.
  public func runBlocking() throws(VirtualMachineError) -> Outcome {
    try begin()
    defer { ConfinedThreads.finishTelling() }
    return ConfinedThreads.with { place.run() }
  }

  private func begin() throws(VirtualMachineError) {
    guard place.begin() else {
      throw VirtualMachineError(.hasRun, "a machine runs once, and this one has: make another")
    }
  }

  /// What it is doing now, as far as its process has said if it is in another.
  public var state: MachineState { place.state }

  // MARK: Commands

  // Each waits for the run to begin, and throws when that is over.

  /// Brings the machine to stand still, with nothing in flight, until `resume()`.
  public func pause() async throws(VirtualMachineError) { try await place.send(.pause) }

  /// Lets the machine go on. Throws if it isn't paused.
  public func resume() async throws(VirtualMachineError) { try await place.send(.resume) }

  /// Starts the machine anew, as by the reset button; RAM keeps what the image doesn't cover.
  public func reset() async throws(VirtualMachineError) { try await place.send(.reset) }

  /// Presses the power button: what follows is the guest's decision.
  public func requestPowerOff() async throws(VirtualMachineError) {
    try await place.send(.powerButton)
  }

  /// Ends the run, which returns `.stopped`, and waits until it is over. A machine that has not been
  /// run will end at once.
  public func stop() async {
    place.stop()
    if place.hasBegun { await place.waitForEnd() }
  }

  /// Saves the machine to the folder `path`, for `init(restoring:)` or `kvmlite restore`, and lets it go
  /// on, or with `stops` ends its run without another instruction of its guest. A save that is there is
  /// replaced when the new one is whole. May be called before the run, too. What disks hold isn't copied: a
  /// save of a machine that goes on and writes to them can't be restored, and the attempt is told so.
  public func save(to path: String, stops: Bool = false) async throws(VirtualMachineError) {
    let folder = SavedFolder.new(path)
    if let refusal = SavedFolder.refusal(of: folder) { throw VirtualMachineError(.saved, refusal) }
    do throws(VirtualMachineError) {
      let (state, memory) = try Self.orSaved(folder) { () throws(Errno) in
        try folder.make()
        return (
          try folder.makeFile(SavedFolder.state), try folder.makeFile(SavedFolder.memory)
        )
      }
      try await place.save(state: state, memory: memory, stays: stops)
      try Self.orSaved(folder) { () throws(Errno) in try folder.keep() }
    } catch {
      folder.remove()
      throw error
    }
    if stops { await stop() }
  }

  private static func orSaved<Value>(
    _ folder: NewFolder, _ body: () throws(Errno) -> Value
  ) throws(VirtualMachineError) -> Value {
    do { return try body() } catch {
      throw VirtualMachineError(.saved, "\(folder.path): can't be made: \(error)")
    }
  }

  // MARK: Looking

  // Each look stops a machine that runs for a moment, and may be taken before and after the run, too.
  // After the run of a machine in a process of its own, only what was counted is left.

  /// What was counted so far; of a machine in a process of its own without what devices did.
  public var statistics: RunStatistics {
    get async { await place.statistics() }
  }

  /// `count` bytes of the guest's memory from the physical address `address` on.
  public func memory(
    at address: GuestAddress, count: Int
  ) async throws(VirtualMachineError) -> [UInt8] {
    guard count >= 0, let bytes = try await place.memory(at: address, count: count) else {
      throw VirtualMachineError(
        .nothingThere, "the guest has no memory for \(count) bytes at \(hex(address.value))")
    }
    return bytes
  }

  /// The general registers of a VCPU.
  public func registers(ofVCPU id: Int = 0) async throws(VirtualMachineError) -> Registers {
    guard let registers = try await place.registers(ofVCPU: id) else { throw Self.noRegisters(id) }
    return registers
  }

  /// Segments and control registers of a VCPU.
  public func specialRegisters(
    ofVCPU id: Int = 0
  ) async throws(VirtualMachineError) -> SpecialRegisters {
    guard let registers = try await place.specialRegisters(ofVCPU: id) else {
      throw Self.noRegisters(id)
    }
    return registers
  }

  private static func noRegisters(_ id: Int) -> VirtualMachineError {
    VirtualMachineError(.nothingThere, "VCPU \(id) has no registers to show")
  }
}
