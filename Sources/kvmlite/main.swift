import ArgumentParser
import Glibc
import Host
import Machine

/// The command line: what each subcommand does is in its own file.
struct KVMLite: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kvmlite",
    abstract: "Runs guest images on KVM: from a boot sector to an ELF file.",
    discussion: """
      Guest output goes to standard output, everything else to standard error. \
      Without an image the built-in hello guest runs.
      """,
    version: "kvmlite 0.1, before its first release",
    subcommands: [
      RunCommand.self, ConfigCommand.self, UpCommand.self, ListCommand.self, InspectCommand.self,
      AttachCommand.self, LogsCommand.self, StopCommand.self, KillCommand.self,
      RemoveCommand.self, PauseCommand.self, ResumeCommand.self, ResetCommand.self,
      SaveCommand.self, RestoreCommand.self, MigrateCommand.self, ReceiveCommand.self,
      StatsCommand.self, WaitCommand.self,
      DoctorCommand.self, GuestsCommand.self, LabCommand.self,
      DiskCommand.self,
      BackendCommand.self, TimelineCommand.self,
    ],
    defaultSubcommand: RunCommand.self)

  /// Reads `arguments` and does what they say.
  static func start(_ arguments: [String]) -> Never {
    var command: any ParsableCommand
    do {
      try requireCommands(arguments)
      command = try parse(arguments)
    } catch {
      // Who asks for help, or the version, gets it.
      guard exitCode(for: error) != .success else { exit(withError: error) }
      Message.line(fullMessage(for: error))
      if let meant = CommandTree.read()?.meant(by: arguments) {
        Message.note("did you mean: \(meant)")
      }
      Glibc.exit(exitCode(for: error).rawValue)
    }
    do { try command.run() } catch { exit(withError: error) }
    exit()
  }

  /// Reads `run` or `restore` alone first, and all commands only where that isn't it: that takes as long as a
  /// short run.
  private static func parse(_ arguments: [String]) throws -> any ParsableCommand {
    if arguments.first == "restore",
      let restore = try? RestoreCommand.parseAsRoot(Array(arguments.dropFirst())),
      restore is RestoreCommand
    {
      return restore
    }
    let isNamed = arguments.first == "run"
    if isNamed || !CommandWords.all.contains(arguments.first ?? ""),
      let run = try? RunCommand.parseAsRoot(isNamed ? Array(arguments.dropFirst()) : arguments),
      run is RunCommand
    {
      return run
    }
    return try parseAsRoot(arguments)
  }

  /// Refuses help for a command that there isn't.
  private static func requireCommands(_ arguments: [String]) throws {
    guard arguments.first == "help", let tree = CommandTree.read() else { return }
    let place = tree.place(of: arguments.dropFirst())
    guard let word = place.positionals.first else { return }
    throw ValidationError(
      "there is no command '\((place.path.dropFirst() + [word]).joined(separator: " "))'")
  }
}

FileDescriptor.reserveStandardStreams()
InheritedFiles.note()
// A closed pipe or a file grown too large is an error of a write, not a reason to die.
Signal.brokenPipe.ignore()
Signal.fileSizeLimit.ignore()
// From Linux 5.18 on, a program that is started with nothing gets an empty name.
guard HostEnvironment.arguments.first?.isEmpty == false else {
  Message.error("started without arguments, not even a name: whoever starts kvmlite gives it one")
  exit(64)
}
let arguments = Array(HostEnvironment.arguments.dropFirst())
if arguments.first == "__complete" {
  let lines = Completion.lines(for: Array(arguments.dropFirst()))
  try Message.output(lines.map { $0 + "\n" }.joined())
  exit(0)
}
if ["run", "restore", "receive"].contains(arguments.first)
  || !CommandWords.all.contains(arguments.first ?? "")
{
  RunSandbox.prepare()
}
if let spec = VMConfiguration(withoutOptions: arguments) {
  // Reading options takes as long as a short run: where there are none, it is left out.
  exit(Session(spec, Session.Settings()).run())
}
if arguments.count == 2, arguments[0] == "restore", !arguments[1].hasPrefix("-") {
  do { exit(try RestoreCommand.go(on: arguments[1])) } catch { KVMLite.exit(withError: error) }
}
KVMLite.start(Arguments.normalized(arguments))
