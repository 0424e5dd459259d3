import ArgumentParser
import Host
import Machine

/// `kvmlite [run]`: runs an image.
struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", _superCommandName: "kvmlite",
    abstract: "Run a guest image (this is the default).",
    discussion: """
      Exit status: 0 when the guest ends in order (power-off, reset with --no-reboot, a halt that \
      nothing can end), (V<<1)|1 when it writes V to port 0xF4, 64 wrong options, 65 malformed \
      image, 66 unreadable image, 69 no usable KVM, 70 the guest crashed, 71 the host failed, \
      77 no permission for /dev/kvm, 124 the time ran out, 128+N ended by signal N.
      """)

  @OptionGroup var machine: MachineOptions
  @OptionGroup var process: ProcessOptions
  @OptionGroup var named: NameOptions

  @Option(
    help: ArgumentHelp(
      """
      Take commands from the open file of that number, one end of a socketpair(2) of messages, and end \
      the run when its other end is closed.
      """, valueName: "number"),
    transform: { try RunCommand.readOwner($0) })
  var controlFd: ControlOwner?

  private static func readOwner(_ text: String) throws -> ControlOwner {
    guard let number = Int32(text), number > 2 else {
      throw ValidationError("'\(text)' is no open file's number: give one above 2")
    }
    do throws(Errno) { return try ControlOwner(number) } catch {
      throw ValidationError("file \(number) can't take commands, as a Unix socket can: \(error)")
    }
  }

  func run() throws {
    if named.name != nil {
      guard controlFd == nil else {
        Message.error("--control-fd is for a machine without a name: leave one of both out")
        throw ExitCode(64)
      }
      try NamedStart(machine, process, named).run(inBackground: false)
    }
    guard !named.paused || controlFd != nil else {
      Message.error("--paused is for a machine that others can resume: give it a name by --name")
      throw ExitCode(64)
    }
    let spec = try machine.read()
    var settings = process.settings
    settings.isFromFile = machine.config != nil
    settings.isPaused = named.paused
    settings.owner = controlFd
    throw ExitCode(Session(spec, settings).run())
  }
}

/// The words that are commands, and so no images.
enum CommandWords {
  static let all = [
    "run", "config", "up", "ls", "inspect", "attach", "logs", "stop", "kill", "rm", "pause",
    "resume", "reset", "save", "restore", "stats", "wait", "doctor", "guests", "lab", "disk",
    "backend", "timeline",
    "help",
  ]
}

extension VMConfiguration {
  /// The machine of a command line without options: `kvmlite [run] [IMAGE]`; nil for any other.
  init?(withoutOptions arguments: [String]) {
    let words = arguments.first == "run" ? arguments.dropFirst() : arguments[...]
    guard words.count <= 1,
      words.allSatisfy({ !$0.hasPrefix("-") && !$0.isEmpty && !CommandWords.all.contains($0) })
    else { return nil }
    self.init()
    image = words.first
  }
}
