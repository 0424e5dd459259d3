import ArgumentParser
import Host
import Machine

/// `kvmlite attach`: a machine's console, here.
struct AttachCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach", abstract: "Show a machine's console here, and type on it.",
    discussion: """
      Shows what was missed since somebody last looked, and goes on until the machine ends, whose exit \
      status this has then, or until Ctrl-A Q. Several may look, and type, at once.
      """)

  @OptionGroup var machine: MachineArgument

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      let terminal = Terminal(FileDescriptor(borrowing: 0))
      let client = try machine.connectToRunning()
      let viewer = try ConsoleViewer(machine, client, from: .missed, mayType: true)
      terminal?.restoreOnCrash()
      terminal?.makeRaw()
      let hasEnded = viewer.show(isTerminal: terminal != nil)
      terminal?.restore()
      guard hasEnded else {
        Message.note("\(machine.name) goes on: kvmlite attach \(machine.name) comes back to it")
        return 0
      }
      _ = client.waitForEnd()
      return machine.tellEnd()
    }
  }
}

/// `kvmlite logs`: what a guest has printed.
struct LogsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "logs", abstract: "Print what a machine's guest has printed.",
    discussion: """
      The last 1 to 2 MiB are kept, over all the machine's runs, until kvmlite rm.
      """)

  @OptionGroup var machine: MachineArgument

  @Flag(name: .shortAndLong, help: "Go on with what it prints, until the machine ends.")
  var follow = false

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      if follow, let client = try machine.connect() {
        _ = try ConsoleViewer(machine, client, from: .oldest, mayType: false).show(
          isTerminal: false)
        return 0
      }
      let output = FileDescriptor(borrowing: 1)
      let console = machine.places.console
      for path in [ConsoleRecord.older(console), console] {
        guard let bytes = try? WholeFile.contents(of: path, limit: 1 << 24) else { continue }
        do throws(Errno) { try output.writeAll(bytes.span) } catch {
          if error == .brokenPipe { return 0 }
          throw Failure(status: 71, message: "standard output can't be written: \(error)")
        }
      }
      return 0
    }
  }
}

extension KnownMachine {
  /// Says how the machine ended, and gives its exit status.
  func tellEnd() -> Int32 {
    guard let outcome = readOutcome() else {
      Message.note("\(name) was killed")
      return 137
    }
    let status = outcome.number("status")
    Message.note("\(name) has ended: \(outcome.text("end")) (status \(status))")
    return Int32(clamping: status)
  }
}
