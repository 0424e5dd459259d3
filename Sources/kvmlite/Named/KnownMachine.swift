import ArgumentParser
import Host
import Machine

/// A machine that is known by name: how the verbs reach it.
struct KnownMachine {
  let name: MachineName
  let places: MachinePlaces

  /// The machine called `text`.
  init(_ text: String, in store: MachineStore = MachineStore()) throws(Failure) {
    guard let name = MachineName(text), store.knows(name) else {
      let names = store.names().map(\.description)
      let hint = Spelling.hint(text, among: names)
      let rest = names.isEmpty ? "; start one by: kvmlite up" : "; see: kvmlite ls"
      throw Failure(
        status: 66,
        message: "there is no machine \(JSON.shown(text))" + (hint.isEmpty ? rest : hint))
    }
    self.init(name, store.places(name))
  }

  init(_ name: MachineName, _ places: MachinePlaces) {
    self.name = name
    self.places = places
  }

  /// A connection to its process; nil where it isn't running.
  func connect() throws(Failure) -> ControlClient? {
    do throws(Errno) { return try ControlClient(at: places.control) } catch {
      switch error {
      case .noSuchFile, .connectionRefused, .connectionReset: return nil
      default:
        let isRight = error == .accessDenied || error == .notPermitted
        throw Failure(
          status: isRight ? 77 : 71, message: "\(places.control): can't be reached: \(error)")
      }
    }
  }

  /// The same; one that isn't running is an error.
  func connectToRunning() throws(Failure) -> ControlClient {
    if let client = try connect() { return client }
    guard places.isTaken else { throw isNotRunning }
    throw Failure(status: 75, message: "the machine '\(name)' is only starting, or ending")
  }

  var isNotRunning: Failure {
    Failure(
      status: 66, message: "the machine '\(name)' isn't running: kvmlite up \(name) starts it")
  }

  /// Asks for `kind`, and waits for the answer.
  @discardableResult
  func ask(
    _ kind: ControlMessage.Kind, _ members: [JSON.Member] = [], files: [Int32] = []
  ) throws(Failure) -> JSON {
    let client = try connectToRunning()
    do throws(ControlClient.Trouble) {
      return try client.ask(kind, members, files: files, until: Self.deadline)
    } catch { throw Failure(error, self) }
  }

  /// For how long a machine may make no answer.
  static var deadline: UInt64 { Clock.monotonicNanoseconds &+ 60_000_000_000 }

  /// How its last run ended; nil where nobody saw that, or there was none.
  func readOutcome() -> JSON? {
    guard let text = try? WholeFile.contents(of: places.outcome, limit: 1 << 20) else {
      return nil
    }
    return try? JSON(parsing: text)
  }
}

extension Failure {
  /// Why the process of `machine` didn't do what it was asked for.
  init(_ trouble: ControlClient.Trouble, _ machine: KnownMachine) {
    switch trouble {
    case .gone:
      self.init(status: 66, message: "the machine '\(machine.name)' has just ended")
    case .late:
      self.init(status: 75, message: "the machine '\(machine.name)' doesn't answer")
    case .refused(let reason): self.init(status: 75, message: "\(machine.name): \(reason)")
    }
  }
}

extension JSON {
  /// The member `name`, if that is a whole number; 0 else.
  func number(_ name: String) -> UInt64 {
    if case .unsigned(let number)? = self[name]?.value { number } else { 0 }
  }

  /// The member `name`, if that is a text; empty else.
  func text(_ name: String) -> String {
    if case .string(let text)? = self[name]?.value { text } else { "" }
  }
}
