import ArgumentParser
import Host
import Machine

// The verbs that change what a machine does.

/// `kvmlite pause`.
struct PauseCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pause", abstract: "Let a machine stand still, with nothing in flight.")

  @OptionGroup var machine: MachineArgument

  func run() throws { try machine.ask(.pause) }
}

/// `kvmlite resume`.
struct ResumeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "resume", abstract: "Let a machine that was paused go on.")

  @OptionGroup var machine: MachineArgument

  func run() throws { try machine.ask(.resume) }
}

/// `kvmlite reset`.
struct ResetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reset", abstract: "Press a machine's reset button.")

  @OptionGroup var machine: MachineArgument

  func run() throws { try machine.ask(.reset) }
}

/// `kvmlite stop`: in order, if the guest can.
struct StopCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop", abstract: "Press a machine's power button, and wait for its end.",
    discussion: """
      A guest that doesn't switch itself off in time has its power switched off: what it had not \
      written to its disks is lost.
      """)

  @OptionGroup var machine: MachineArgument

  @Option(
    help: ArgumentHelp("How long the guest may take. (default: 10)", valueName: "seconds"),
    transform: Seconds.read)
  var grace: Seconds?

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      let client = try machine.connectToRunning()
      let grace = grace ?? Seconds(10)
      do throws(ControlClient.Trouble) {
        try client.ask(.powerButton, until: KnownMachine.deadline)
      } catch .gone { return 0 } catch { throw Failure(error, machine) }
      if client.waitForEnd(until: grace.deadline) { return 0 }
      Message.note(
        "\(machine.name) has not switched itself off in \(grace): its power is switched off")
      return try KillCommand.end(machine, client)
    }
  }
}

/// `kvmlite kill`: at once.
struct KillCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kill", abstract: "Switch a machine's power off, whatever its guest is doing.")

  @OptionGroup var machine: MachineArgument

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      return try Self.end(machine, machine.connectToRunning())
    }
  }

  /// Ends the run, so that all that belongs to the host is flushed; if the process doesn't do that in a
  /// few seconds, it is killed.
  static func end(
    _ machine: KnownMachine, _ client: borrowing ControlClient
  ) throws(Failure) -> Int32 {
    let deadline = Seconds(5).deadline
    do throws(ControlClient.Trouble) { try client.ask(.stop, until: deadline) } catch {}
    if client.waitForEnd(until: deadline) { return 0 }
    client.killProcess()
    if client.waitForEnd(until: deadline) { return 0 }
    throw Failure(
      status: 71, message: "\(machine.name): process \(client.process) can't be killed")
  }
}

/// `kvmlite rm`: forgets a machine.
struct RemoveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Forget a machine: remove what kvmlite keeps of it.",
    discussion: "Prints what it removes. Images and disks aren't among that.")

  @OptionGroup var machine: MachineArgument

  @Flag(help: "Switch its power off first, if it runs.")
  var force = false

  func run() throws {
    try ending { () throws(Failure) in
      let store = MachineStore()
      let machine = try KnownMachine(machine.name, in: store)
      if let client = try machine.connect() {
        guard force else {
          throw Failure(
            status: 75,
            message:
              "the machine '\(machine.name)' runs: kvmlite stop \(machine.name) ends it, and "
              + "--force switches its power off")
        }
        _ = try KillCommand.end(machine, client)
      }
      do throws(StoreError) {
        let claim = try store.claim(machine.name)
        let paths = claim.files()
        try claim.remove()
        try? Message.output(paths.map { $0 + "\n" }.joined())
      } catch { throw Failure(error, machine.name) }
      return 0
    }
  }
}

/// The name of a machine that is known.
struct MachineArgument: ParsableArguments {
  @Argument(help: ArgumentHelp("The machine's name (see: kvmlite ls).", valueName: "machine"))
  var name: String

  /// Asks the machine for `kind` and ends.
  func ask(_ kind: ControlMessage.Kind) throws -> Never {
    try ending { () throws(Failure) in
      try KnownMachine(name).ask(kind)
      return 0
    }
  }
}

/// A length of time.
struct Seconds: CustomStringConvertible {
  private let value: Double

  init(_ value: Double) { self.value = value }

  static func read(_ text: String) throws -> Seconds {
    guard let value = Double(text), value >= 0, value <= 1e9 else {
      throw ValidationError("'\(text)' is no number of seconds")
    }
    return Seconds(value)
  }

  /// When it is over, by `Clock.monotonicNanoseconds`, if it begins now.
  var deadline: UInt64 { Clock.monotonicNanoseconds &+ UInt64(value * 1e9) }

  var description: String { "\(value == value.rounded() ? "\(Int(value))" : "\(value)") s" }
}
