import ArgumentParser
import Host
import Machine
import Memory

/// The options that say how a machine is run and looked at: no part of it.
struct ProcessOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Print a line for each exit, interrupt and device request; with =io, =mmio, =irq, =requests \
      only for these.
      """, valueName: "kinds"))
  var trace: TraceKinds?

  @Option(
    help: ArgumentHelp(
      "Write the same as trace events for ui.perfetto.dev.", valueName: "out.json"))
  var traceFile: String?

  @Option(
    help: ArgumentHelp(
      "Print counts and times of exits and devices at the end; as JSON with =json.",
      valueName: "format"))
  var stats: StatisticsFormat?

  @Option(
    help: ArgumentHelp(
      "Write the same as JSON to a file, whether or not --stats prints it.", valueName: "out.json"))
  var statsFile: String?

  @Option(
    help: ArgumentHelp(
      "Write how the run ended to a file, as JSON: the status alone can't tell a guest's number.",
      valueName: "out.json"))
  var outcomeFile: String?

  @Option(
    help: ArgumentHelp(
      """
      At the end, and at each SIGUSR1 or Ctrl-A W, follow a linear address through the guest's page \
      tables. May be repeated.
      """,
      valueName: "address"))
  var walk: [GuestAddress] = []

  @Option(
    help: ArgumentHelp(
      """
      Save the machine to a folder when the run is ended from outside or by the exit port, and at each \
      Ctrl-A P.
      """, valueName: "folder"))
  var saveAtExit: String?

  @Option(
    help: ArgumentHelp(
      "Save the machine to a folder when its guest crashes or its time is over, to be looked at.",
      valueName: "folder"))
  var saveOnCrash: String?

  @Option(help: ArgumentHelp("End the run after so many seconds.", valueName: "seconds"))
  var timeout: Double?

  @Flag(name: .shortAndLong, help: "Say what the machine is made of before it starts.")
  var verbose = false

  @Flag(help: "End when the guest resets the machine, instead of starting it again.")
  var noReboot = false

  @OptionGroup
  var confinement: SandboxOptions

  /// The same, for a session.
  var settings: Session.Settings {
    var settings = Session.Settings(
      trace: trace, traceFile: traceFile, statistics: stats, statisticsFile: statsFile,
      outcomeFile: outcomeFile, walks: walk, timeLimit: timeout, reboots: !noReboot,
      isVerbose: verbose, sandbox: confinement.sandbox, user: confinement.user)
    (settings.saveAtExit, settings.saveOnCrash) = (saveAtExit, saveOnCrash)
    return settings
  }
}

/// The options that say how far a process that serves guests confines itself.
struct SandboxOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      How far kvmlite confines itself before the guest starts; with log, what isn't allowed is said and \
      done.
      """, valueName: "mode"))
  var sandbox: SandboxMode = .on

  @Option(
    help: ArgumentHelp(
      """
      Started by root: the user that kvmlite becomes before the guest starts, by number, USER or \
      USER:GROUP. (default: one of this process's own)
      """, valueName: "user"),
    transform: { try SandboxOptions.readUser($0) })
  var user: Confinement.User?

  private static func readUser(_ text: String) throws -> Confinement.User {
    let words = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt32($0) }
    guard let user = words[0], let group = words.last ?? nil, words.count <= 2, user > 0, group > 0
    else {
      throw ValidationError("'\(text)' is no user: give numbers above 0, as 1000 or 1000:1000")
    }
    return Confinement.User(user: user, group: group)
  }
}
