import Host
import Inspect
import Machine
import Memory

/// One use of kvmlite: runs a guest as the options say, anew after each reset, and gives the exit
/// status.
struct Session {
  /// How a machine is run and looked at.
  struct Settings {
    var trace: TraceKinds?
    var traceFile: String?
    var statistics: StatisticsFormat?
    var walks: [GuestAddress] = []
    var timeLimit: Double?
    var reboots = true
    var isVerbose = false
    /// Whether the machine is that of a file, not one of options alone.
    var isFromFile = false
  }

  private let spec: VMConfiguration
  private let options: Settings

  init(_ spec: VMConfiguration, _ settings: Settings) {
    self.spec = spec
    options = settings
  }

  /// Runs to the end; what goes wrong is said on standard error.
  func run() -> Int32 {
    do throws(Failure) {
      let resources: Resources
      do throws(ResourceError) {
        resources = try Resources(opening: spec) { Message.note($0) }
      } catch { throw Failure(error, isFromFile: options.isFromFile) }
      defer { resources.close() }
      return try withConsole(resources, makeRunOptions(resources))
    } catch {
      Message.error(error.message)
      return error.status
    }
  }

  private func makeRunOptions(_ resources: Resources) throws(Failure) -> RunOptions {
    var run = RunOptions(timeLimit: options.timeLimit)
    run.deviceTrouble = { Message.note($0) }
    run.observation = try makeObservation(resources)
    run.endingSignals = [Signal.interrupt, .quit, .terminate, .hangUp]
      .filter { !$0.isIgnored }.map(\.number)
    let walks = options.walks
    run.look = (
      Signal.user1.number,
      { machine in
        Message.note(
          walks.isEmpty
            ? "nothing to look at: give addresses by --walk" : "the guest stands still")
        for address in walks { WalkAccount(machine: machine).tell(address.value) }
      }
    )
    return run
  }

  private func makeObservation(_ resources: Resources) throws(Failure) -> Observation? {
    guard options.trace != nil || options.traceFile != nil || options.statistics != nil else {
      return nil
    }
    var observation = Observation()
    observation.kinds = options.trace ?? .all
    observation.continuesAfterReset = options.reboots
    if options.trace != nil {
      if FileDescriptor(borrowing: 1).isTerminal && FileDescriptor(borrowing: 2).isTerminal {
        observation.terminalLine = TerminalLine()
      }
      observation.sinks.append(
        TextTrace(descriptor: 2, terminalLine: observation.terminalLine))
    }
    if let path = options.traceFile {
      if let user = resources.user(of: path) {
        throw Failure(
          status: 64, message: "\(path): can't be for --trace-file and for \(user) at the same time"
        )
      }
      do { observation.sinks.append(try ChromeTrace(path: path)) } catch {
        throw Failure(status: 71, message: "\(path): can't be written: \(error)")
      }
    }
    return observation
  }

  // MARK: Console

  /// Sets up the console, runs, and puts the terminal back.
  private func withConsole(
    _ opened: Resources, _ run: RunOptions
  ) throws(Failure) -> Int32 {
    var resources = opened
    guard let console = spec.consoles.first else { return try runToEnd(resources, run) }
    if let terminal = resources.consoles[console.id]?.terminal {
      Message.note("the console is at \(terminal)")
    }
    guard console.isStandard else { return try runToEnd(resources, run) }
    let terminal = InteractiveConsole()
    resources.consoles[console.id] = .init(output: .descriptor(1), input: terminal.input)
    return try runToEnd(resources, run)
  }

  // MARK: Running

  private func runToEnd(_ resources: Resources, _ first: RunOptions) throws(Failure) -> Int32 {
    var run = first
    let start = Clock.monotonicNanoseconds
    while true {
      let machine: Machine
      do { machine = try Machine(spec, resources, run) } catch { throw Failure(error) }
      if options.isVerbose { MachineSummary(machine).tell() }
      let outcome = machine.run()
      guard case .reset = outcome, options.reboots else {
        let status = Account(machine, outcome).tell(statistics: options.statistics)
        for address in options.walks { WalkAccount(machine: machine).tell(address.value) }
        return status
      }
      // A reset takes nothing from what the user has typed.
      run.unreadInput = machine.unreadInput
      let elapsed = Double(Clock.monotonicNanoseconds - start) / 1e9
      run.timeLimit = options.timeLimit.map { max($0 - elapsed, 0.001) }
    }
  }
}
