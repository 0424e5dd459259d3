import ArgumentParser
import Host
import Machine

/// What a restored machine's clocks show.
enum ClockMode: String, CaseIterable, ExpressibleByArgument {
  /// What they showed when it was saved.
  case keep
  /// What they would show if it had run all the time.
  case host
}

/// `kvmlite restore`: goes on with a saved machine.
struct RestoreCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "restore", _superCommandName: "kvmlite", abstract: "Go on with a saved machine.",
    discussion: """
      Its memory comes from the folder as it is touched; the folder isn't changed, and may be restored \
      again. Its disks must be as they were. With -n several machines go on from it in the background, \
      each with an image of its own on each disk, and other addresses. Exit status as of kvmlite run; \
      65 for a damaged folder or a changed disk.
      """)

  @Argument(help: ArgumentHelp("The folder that kvmlite save made.", valueName: "folder"))
  var folder: String

  @Flag(help: "Look first whether all of its memory is as it was saved, which takes a while.")
  var verify = false

  @Option(
    help: ArgumentHelp(
      """
      Whether its clocks go on where they stood (keep), or where the host's are by now (host).
      """, valueName: "which"))
  var clock = ClockMode.keep

  @Option(
    name: [.customShort("n"), .long],
    help: ArgumentHelp(
      "Start so many machines in the background, called NAME-1 and so on, by --name or else the folder.",
      valueName: "number"))
  var number: Int?

  @Option(
    help: ArgumentHelp(
      "With -n: give the disk ID the serial number TEXT-1 and so on, each machine another. May be repeated.",
      valueName: "id=text"), transform: Clones.readSerial)
  var serial: [Clones.Serial] = []

  @OptionGroup var process: ProcessOptions
  @OptionGroup var named: NameOptions
  @OptionGroup var owner: OwnerOptions

  func run() throws {
    // Several have names in any case.
    if number == nil { try owner.check(named) }
    let (spec, saved) = try Self.read(folder, verify: verify)
    LostMemory.end()
    if let number {
      guard owner.controlFd == nil else {
        Message.error("--control-fd is for a machine without a name, and -n gives each one")
        throw ExitCode(64)
      }
      let clones = Clones(
        count: number, serials: serial, spec: spec, saved: saved, countsAbsence: clock == .host,
        process: process, options: named)
      try clones.start()
    }
    guard serial.isEmpty else {
      Message.error("--serial is for several machines: say how many by -n")
      throw ExitCode(64)
    }
    let origin = Session.Origin(saved, countsAbsence: clock == .host)
    if named.name != nil {
      try NamedStart(spec, from: origin, process, named).run(inBackground: false)
    }
    var settings = process.settings
    settings.isFromFile = true
    settings.origin = origin
    settings.isPaused = named.paused
    settings.owner = owner.controlFd
    throw ExitCode(Session(spec, settings).run())
  }

  /// What `kvmlite restore FOLDER` does, without reading options, which takes as long as a short run; gives the
  /// exit status.
  static func go(on folder: String) throws -> Int32 {
    let (spec, saved) = try read(folder, verify: false)
    LostMemory.end()
    var settings = Session.Settings()
    settings.isFromFile = true
    settings.origin = Session.Origin(saved, countsAbsence: false)
    return Session(spec, settings).run()
  }

  private static func read(
    _ folder: String, verify: Bool
  ) throws -> (VMConfiguration, SavedFolder.Opened) {
    do throws(RestoreError) {
      let saved = try SavedFolder.open(folder)
      if verify {
        var progress = ProgressBar()
        defer { progress.end() }
        let start = Clock.monotonicNanoseconds
        try saved.memory.verify { done, all in
          if Clock.monotonicNanoseconds &- start > 1_000_000_000 { progress.show(done, of: all) }
        }
      }
      return (try saved.machine.spec(), saved)
    } catch {
      let failure = Failure(error, folder)
      Message.error(failure.message)
      throw ExitCode(failure.status)
    }
  }
}

extension Failure {
  /// Why the machine saved in `folder` doesn't go on.
  init(_ error: RestoreError, _ folder: String) {
    if case .machine(let error) = error {
      self.init(error)
    } else {
      self.init(status: error.status, message: "\(folder): " + DiskCommand.printable("\(error)"))
    }
  }
}

extension RestoreError {
  /// What the command ends with.
  var status: Int32 {
    switch self {
    case .file(let errno): errno == .noMemory ? 71 : 66
    case .base(_, let error): error.status
    case .processor: 69
    default: 65
    }
  }
}

extension Failure {
  /// Why the machine that `place` sends doesn't come.
  init(_ trouble: MigrationStream.Trouble, _ place: String) {
    let status: Int32 =
      switch trouble {
      case .nonsense: 65
      case .stalled: 124
      default: 71
      }
    self.init(status: status, message: "\(place): \(trouble)")
  }
}
