import ArgumentParser
import Host
import Machine

/// `kvmlite wait`: for something that a machine does.
struct WaitCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait", abstract: "Wait until a machine runs, prints something, or ends.",
    discussion: """
      With --for exit, which is the default, the status is the machine's own. With --for text=TEXT \
      what it has printed since its start counts too; 66 says that it has ended without. 124 says that \
      the time ran out.
      """)

  @OptionGroup var machine: MachineArgument

  @Option(
    name: .customLong("for"),
    help: ArgumentHelp("running, text=TEXT, or exit.", valueName: "what"), transform: Event.read)
  var event = Event.exit

  @Option(
    help: ArgumentHelp("How long to wait at most.", valueName: "seconds"), transform: Seconds.read)
  var timeout: Seconds?

  enum Event {
    case running, exit
    case text([UInt8])

    static func read(_ word: String) throws -> Event {
      switch word {
      case "running": return .running
      case "exit": return .exit
      case _ where word.hasPrefix("text=") && word.utf8.count > 5:
        return .text(Array(word.utf8.dropFirst(5)))
      default:
        throw ValidationError("'\(word)' can't be waited for: running, text=TEXT or exit can")
      }
    }
  }

  func run() throws {
    let deadline = timeout?.deadline ?? .max
    let event = event
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      switch event {
      case .running: return try machine.waitUntilRunning(until: deadline)
      case .exit: return try machine.waitForEnd(until: deadline)
      case .text(let text): return try machine.wait(for: text, until: deadline)
      }
    }
  }
}

extension KnownMachine {
  private static let late = Failure(status: 124, message: "the time is up")

  /// A connection to its process, which may be only starting, or ending; nil where there is none.
  private func connect(until deadline: UInt64) throws(Failure) -> ControlClient? {
    while true {
      if let client = try connect() { return client }
      guard places.isTaken else { return nil }
      let now = Clock.monotonicNanoseconds
      guard now < deadline else { throw Self.late }
      Clock.wait(until: min(deadline, now &+ 10_000_000))
    }
  }

  /// Waits for its end, and gives the exit status that it ends with.
  fileprivate func waitForEnd(until deadline: UInt64) throws(Failure) -> Int32 {
    if let client = try connect(until: deadline) {
      guard client.waitForEnd(until: deadline) else { throw Self.late }
    }
    return tellEnd()
  }

  /// Waits until its VCPUs run, whether or not it has been started.
  fileprivate func waitUntilRunning(until deadline: UInt64) throws(Failure) -> Int32 {
    while true {
      if let client = try connect(), let status = try? client.ask(.status, until: deadline),
        status.text("state") == MachineState.running.rawValue
      {
        return 0
      }
      let now = Clock.monotonicNanoseconds
      guard now < deadline else { throw Self.late }
      Clock.wait(until: min(deadline, now &+ 10_000_000))
    }
  }

  /// Waits until its guest has printed `text`.
  fileprivate func wait(for text: [UInt8], until deadline: UInt64) throws(Failure) -> Int32 {
    guard let client = try connect(until: deadline) else { throw isNotRunning }
    let viewer = try ConsoleViewer(self, client, from: .run, mayType: false)
    var seen: [UInt8] = []
    let isFound = viewer.read(until: deadline) { bytes in
      for index in bytes.indices { seen.append(bytes[index]) }
      guard !seen.contains(text) else { return false }
      // Its beginning may be there already.
      seen.removeFirst(max(0, seen.count - text.count + 1))
      return true
    }
    switch isFound {
    case true?: return 0
    case nil: throw Self.late
    case false?:
      throw Failure(
        status: 66, message: "the machine '\(name)' has ended without printing that")
    }
  }
}

extension [UInt8] {
  /// Whether `part` is somewhere in it.
  fileprivate func contains(_ part: [UInt8]) -> Bool {
    guard let first = part.first, count >= part.count else { return false }
    return indices.dropLast(part.count - 1).contains { start in
      self[start] == first && self[start..<start + part.count].elementsEqual(part)
    }
  }
}
