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

  @OptionGroup var owner: OwnerOptions

  func run() throws {
    try owner.check(named)
    if named.name != nil {
      try NamedStart(machine, process, named).run(inBackground: false)
    }
    let spec = try machine.read()
    var settings = process.settings
    settings.isFromFile = machine.config != nil
    settings.isPaused = named.paused
    settings.owner = owner.controlFd
    throw ExitCode(Session(spec, settings).run())
  }
}

/// The words that are commands, and so no images.
enum CommandWords {
  static let all = [
    "run", "config", "up", "ls", "inspect", "attach", "logs", "stop", "kill", "rm", "pause",
    "resume", "reset", "save", "restore", "migrate", "receive", "stats", "wait", "doctor", "guests",
    "lab", "disk",
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
