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
      again. Its disks must be as they were. Exit status as of kvmlite run; 65 for a damaged folder or \
      a changed disk.
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

  @OptionGroup var process: ProcessOptions
  @OptionGroup var named: NameOptions
  @OptionGroup var owner: OwnerOptions

  func run() throws {
    try owner.check(named)
    let (spec, origin) = try read()
    LostMemory.end()
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

  private func read() throws -> (VMConfiguration, Session.Origin) {
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
      return (
        try saved.machine.spec(),
        Session.Origin(
          machine: saved.machine, memory: .file(saved.memory), place: folder,
          countsAbsence: clock == .host)
      )
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
