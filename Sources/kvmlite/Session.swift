import Boot
import Doctor
import Glibc
import Host
import Inspect
import KVM
import Machine
import Memory

/// One use of kvmlite: runs a guest as the options say, and gives the exit status.
struct Session {
  /// How a machine is run and looked at.
  struct Settings {
    var trace: TraceKinds?
    var traceFile: String?
    var statistics: StatisticsFormat?
    var statisticsFile: String?
    var outcomeFile: String?
    var walks: [GuestAddress] = []
    var timeLimit: Double?
    var reboots = true
    var isVerbose = false
    /// Whether the machine is that of a file, not one of options alone.
    var isFromFile = false
    /// Whether it stands still at first.
    var isPaused = false
    /// Whether it has a name.
    var isNamed = false
    /// What there is of it for others, if it has one.
    var named: NamedRun?
    /// Who has it for their own.
    var owner: ControlOwner?
    /// How far it is confined.
    var sandbox = SandboxMode.on
    /// Who the confined process becomes, if root has started it.
    var user: Confinement.User?
    /// What was made ready of that already.
    var confinement: RunSandbox?
    /// Where the machine is saved when the run is over, or crashed.
    var saveAtExit: String?
    var saveOnCrash: String?
    /// Where it goes on instead of starting.
    var origin: Origin?
  }

  /// A machine that goes on here.
  struct Origin {
    let machine: SavedMachine
    let memory: RestoredMemory
    /// The folder or the place that it came from.
    let place: String
    /// Whether its clocks have gone on with the host's.
    var countsAbsence = false
    /// Who sends it, and has it until all here is ready.
    var sender: MigrationTarget?
    /// Whether standard error belongs to who brought it, and is let go when it runs.
    var leavesError = false

    init(_ machine: SavedMachine, _ memory: RestoredMemory, from place: String) {
      (self.machine, self.memory, self.place) = (machine, memory, place)
    }

    /// The one of a folder.
    init(_ saved: SavedFolder.Opened, countsAbsence: Bool) {
      self.init(saved.machine, .file(saved.memory), from: saved.path)
      self.countsAbsence = countsAbsence
    }
  }

  private let spec: VMConfiguration
  private let options: Settings
  private let start = Clock.monotonicNanoseconds

  /// When the time of `--timeout` is over.
  private var deadline: UInt64? { options.timeLimit.map { start &+ UInt64($0 * 1e9) } }

  init(_ spec: VMConfiguration, _ settings: Settings) {
    self.spec = spec
    options = settings
  }

  /// Runs to the end; what goes wrong is said on standard error.
  func run() -> Int32 {
    if spec.vcpuCount == 1 && spec.devices.isEmpty { HostMemory.useOneArena() }
    do throws(Failure) {
      if let limit = options.timeLimit, !(limit > 0 && limit <= 1e9) {
        throw Failure(
          status: 64, message: "a time limit of \(limit) s is impossible: give more than 0")
      }
      let signals = try orFailure("signals can't be taken") { () throws(Errno) in
        try SignalSource([.interrupt, .quit, .terminate, .hangUp, .user1, .continued])
      }
      let deadline = deadline
      Message.giveUp = {
        signals.isWaiting || deadline.map { Clock.monotonicNanoseconds >= $0 } ?? false
      }
      let sandbox =
        if let made = options.confinement { made } else { try RunSandbox(options, spec) }
      let reports = try Reports(options, spec, signals)
      var resources = try open(signals)
      defer { resources.close() }
      do { resources.kvm = .opened(try KVMHost()) } catch { resources.kvm = .refused(error) }
      var run = try makeRunOptions(resources, signals)
      if let origin = options.origin, let sender = origin.sender {
        run.didStart = { [before = run.didStart, leavesError = origin.leavesError] in
          sender.runs()
          if leavesError { FileDescriptor.leaveStandardError() }
          before?()
        }
      }
      if let saves = reports.saves { run.keep = { saves.keep($0, $1) } }
      let named = options.named
      sandbox.watch(&run) { what in
        reports.write(outcome: OutcomeReport.ofSandbox(what))
        named?.end(OutcomeReport.ofSandbox(what))
      }
      let (status, machine) = try withConsole(resources, run, signals, sandbox, reports)
      // A thread that waits for the host for ever would keep the process. And without devices and a name
      // there is nothing left but what the kernel frees by itself, and faster.
      if machine.leavesThreads || spec.devices.isEmpty && options.named == nil {
        resources.close()
        _exit(status)
      }
      return status
    } catch {
      options.origin?.sender?.refuse(error.message)
      Message.error(error.message)
      spec.limits.explain(error.message)
      options.named?.end(didNotStart: error)
      return error.status
    }
  }

  /// Opens what the machine is made of. A file may be one that nobody writes to: neither signals nor the
  /// time limit wait for it.
  private func open(_ signals: SignalSource) throws(Failure) -> Resources {
    let guardian = OpeningGuard(spec, signals, deadline)
    defer { guardian?.end() }
    do throws(ResourceError) {
      return try Resources(opening: spec) { Message.note($0.inOptions) }
    } catch { throw Failure(error, isFromFile: options.isFromFile) }
  }

  private func makeRunOptions(
    _ resources: Resources, _ signals: SignalSource
  ) throws(Failure) -> RunOptions {
    var run = RunOptions()
    run.deadline = deadline
    run.restartsAtReset = options.reboots
    run.report = { Message.note($0) }
    run.observation = try makeObservation(resources)
    run.signals = signals
    options.named?.prepare(&run)
    run.owner = options.owner
    let walks = options.walks
    run.look = { machine in
      Message.note(
        walks.isEmpty
          ? "nothing to look at: give addresses by --walk" : "the guest stands still")
      for address in walks { WalkAccount(machine: machine).tell(address.value) }
    }
    return run
  }

  private func makeObservation(_ resources: Resources) throws(Failure) -> Observation? {
    let counts = options.statistics != nil || options.statisticsFile != nil
    guard options.trace != nil || options.traceFile != nil || counts else { return nil }
    var observation = Observation()
    observation.kinds = options.trace ?? .all
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
    _ opened: Resources, _ run: RunOptions, _ signals: SignalSource, _ sandbox: RunSandbox,
    _ reports: Reports
  ) throws(Failure) -> (Int32, Machine) {
    var resources = opened
    guard let console = spec.consoles.first else {
      return try runToEnd(resources, run, sandbox, reports)
    }
    let ends = resources.console
    if let terminal = ends?.terminal {
      Message.note("the console is at \(terminal)" + (console.waits ? ", and waited for" : ""))
    }
    if let opening = ends?.opening {
      let guardian = OpeningGuard(signals, deadline)
      while !opening.file.isReadable(within: -1) {}
      guardian?.end()
    }
    guard console.isStandard else { return try runToEnd(resources, run, sandbox, reports) }
    if let named = options.named, named.isInBackground {
      resources.console = named.console
      return try runToEnd(resources, run, sandbox, reports)
    }
    let terminal = InteractiveConsole()
    var here = Resources.Console(output: .descriptor(1), input: terminal.input(reports.saves))
    if let others = options.named?.console {
      here.output = .both(others.output, here.output)
      here.input = .both(here.input, others.input)
    }
    resources.console = here
    var run = run
    run.didContinue = terminal.takeOver
    return try runToEnd(resources, run, sandbox, reports)
  }

  // MARK: Running

  private func runToEnd(
    _ resources: Resources, _ run: RunOptions, _ sandbox: RunSandbox, _ reports: Reports
  ) throws(Failure) -> (Int32, Machine) {
    // Who can't have a machine is told why by the host's files; no guest runs then.
    let backEnd = backEnd(for: resources)
    let isReady = if case .opened = resources.kvm { true } else { false }
    if isReady && !sandbox.isSmall { try sandbox.enter(isVerbose: options.isVerbose) }
    let machine: Machine
    if let origin = options.origin {
      do {
        machine = try Machine(
          restoring: origin.machine, origin.memory, resources, run,
          countsAbsence: origin.countsAbsence)
      } catch { throw Failure(error, origin.place) }
    } else {
      do { machine = try Machine(spec, resources, run) } catch { throw Failure(error) }
    }
    if sandbox.isSmall { try sandbox.enter(isVerbose: options.isVerbose) }
    if options.isVerbose { MachineSummary(machine).tell() }
    if machine.format.isLinux, let warning = backEnd?.warningForLinux { Message.note(warning) }
    reports.saves?.serve(machine.commands)
    if let origin = options.origin, let sender = origin.sender {
      do { try sender.takeOver() } catch { throw Failure(error, origin.place) }
    }
    if options.isPaused { machine.commands.send(.pause) }
    let outcome = machine.run()
    var status = Account(machine, outcome, backEnd)
      .tell(
        statistics: options.statistics, isOwned: options.owner != nil && options.outcomeFile != nil)
    if case .hostFailed(let message) = outcome { spec.limits.explain(message) }
    status = reports.write(machine, outcome, status)
    options.named?.end(OutcomeReport(outcome, status: status).json())
    for address in options.walks { WalkAccount(machine: machine).tell(address.value) }
    return (status, machine)
  }

  /// The host's, of which somebody who starts a kernel should know.
  private func backEnd(for resources: Resources) -> BackEnd? {
    guard let image = resources.image, spec.firmware == nil,
      (try? ImageFormat(of: image.bytes, name: image.name))?.isKernel == true
    else { return nil }
    return BackEnd.read(.read())
  }

  private func orFailure<Value>(
    _ what: String, _ body: () throws(Errno) -> Value
  ) throws(Failure) -> Value {
    do { return try body() } catch { throw Failure(status: 71, message: "\(what): \(error)") }
  }
}

/// What a run leaves behind as files, where that is asked for.
struct Reports: Sendable {
  private let statistics: (path: String, errand: Errand)?
  private let outcome: (path: String, errand: Errand)?

  /// Where the machine itself is saved.
  let saves: RunSaves?

  init(
    _ settings: Session.Settings, _ spec: VMConfiguration, _ signals: SignalSource
  ) throws(Failure) {
    saves = try RunSaves(settings, spec, signals)
    statistics = settings.statisticsFile.map { ($0, Errand(.write($0))) }
    outcome = settings.outcomeFile.map { ($0, Errand(.writeEnd($0))) }
  }

  /// Writes them; returns `status`, or 71 if that can't be.
  func write(_ machine: Machine, _ end: Outcome, _ status: Int32) -> Int32 {
    var status = saves?.failed == true ? 71 : status
    if let statistics, let counted = machine.statistics {
      status = write(StatisticsReport(counted).json(), statistics, status)
    }
    return write(outcome: OutcomeReport(end, status: status).json(), status)
  }

  /// Writes how the run ended alone.
  @discardableResult
  func write(outcome text: @autoclosure () -> String, _ status: Int32 = 71) -> Int32 {
    outcome.map { write(text(), $0, status) } ?? status
  }

  private func write(_ text: String, _ file: (path: String, errand: Errand), _ status: Int32)
    -> Int32
  {
    do throws(Errno) {
      let contents = try Subprocess.makeTemporaryFile(Array((text + "\n").utf8))
      try file.errand.perform(with: SharedDescriptor(contents))
      return status
    } catch {
      Message.error("\(file.path): can't be written: \(error)")
      return 71
    }
  }
}
