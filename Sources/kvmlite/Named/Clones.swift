import ArgumentParser
import Host
import Machine

/// Several machines that go on from a saved one, each in the background by a name of its own.
struct Clones {
  /// A disk's serial number in all of them, but for the number behind it.
  typealias Serial = (id: String, text: String)

  let count: Int
  let serials: [Serial]
  let spec: VMConfiguration
  let saved: SavedFolder.Opened
  let countsAbsence: Bool
  let process: ProcessOptions
  let options: NameOptions

  /// As many as there may be.
  static let most = 1000

  /// Starts one after the other; each has a process, and says its name when it runs.
  func start() throws -> Never {
    // Each has one of its own.
    Broker.dismiss()
    try ending { () throws(Failure) in
      try check()
      for (index, name) in try names().enumerated() {
        let status = try start(index + 1, name)
        guard status == 0 else {
          if index > 0 { Message.note("\(index) of \(count) run: kvmlite ls shows them") }
          return status
        }
      }
      return 0
    }
  }

  private func check() throws(Failure) {
    guard (1...Self.most).contains(count) else {
      throw Failure(status: 64, message: "-n \(count): give 1 to \(Self.most)")
    }
    if let what = spec.unclonable(count) {
      throw Failure(status: 64, message: "\(saved.path) can't go on \(count) times: \(what)")
    }
    let last = try spec(count)
    // What a file may not say options can't either.
    do throws(SpecError) { _ = try VMConfiguration(json: Array(last.json.text.utf8)) } catch {
      throw Failure(status: 64, message: error.message)
    }
    guard count > 1 else { return }
    let files = [
      ("--trace-file", process.traceFile), ("--stats-file", process.statsFile),
      ("--outcome-file", process.outcomeFile), ("--save-at-exit", process.saveAtExit),
      ("--save-on-crash", process.saveOnCrash),
    ]
    for case (let option, let path?) in files {
      throw Failure(
        status: 64,
        message:
          "\(option) \(path): is for one machine, not for \(count): leave it out")
    }
  }

  /// The machine of that number with its serials.
  private func spec(_ number: Int) throws(Failure) -> VMConfiguration {
    var own = spec
    for (id, text) in serials {
      let disks = own.devices.filter { $0.kind.name == "disk" }.map(\.id)
      guard disks.contains(id), let index = own.devices.firstIndex(where: { $0.id == id }) else {
        throw Failure(
          status: 64,
          message: "--serial: \(JSON.shown(id)) is no disk of the machine"
            + Spelling.hint(id, among: disks))
      }
      own.devices[index].disk.serial = "\(text)-\(number)"
    }
    return own
  }

  /// What `--serial` takes.
  static func readSerial(_ text: String) throws -> Serial {
    guard let sign = text.firstIndex(of: "="), sign != text.startIndex else {
      throw ValidationError("'\(text)' is no serial number: give ID=TEXT, such as disk0=A17")
    }
    return (String(text[..<sign]), String(text[text.index(after: sign)...]))
  }

  private func names() throws(Failure) -> [MachineName] {
    let stem = options.name ?? MachineName(for: saved.path)
    let store = MachineStore()
    var names: [MachineName] = []
    for number in 1...count {
      guard let name = stem.numbered(number) else {
        throw Failure(
          status: 64,
          message: "'\(stem)-\(number)' is too long for a name: give a shorter one by --name")
      }
      guard !store.knows(name) else { throw Failure(isKnown: name) }
      names.append(name)
    }
    return names
  }

  private func start(_ number: Int, _ name: MachineName) throws(Failure) -> Int32 {
    let start = NamedStart(
      clone: number, of: try spec(number), from: saved, countsAbsence: countsAbsence, as: name,
      process, options)
    do throws(Errno) {
      return try Background.status(inCopy: {
        do { try start.run(inBackground: true) } catch { RestoreCommand.exit(withError: error) }
      })
    } catch { throw Failure(status: 71, message: "no process can be started: \(error)") }
  }
}

extension SavedFolder.Opened {
  /// The same for the machine of that number, with what is its own, at `places`.
  func clone(
    _ number: Int, of spec: VMConfiguration, at places: MachinePlaces
  ) throws(Failure) -> (VMConfiguration, SavedFolder.Opened) {
    let own: VMConfiguration
    do throws(Errno) { own = try spec.clone(number, at: places) } catch {
      throw Failure(status: 71, message: "no random numbers for addresses: \(error)")
    }
    do throws(CloneError) { return (own, try clone(own, of: spec)) } catch {
      switch error {
      case .saved(let error): throw Failure(error, path)
      case .disk(let error): throw Failure(error)
      }
    }
  }
}

extension Failure {
  /// There is a machine of the name that another one was to have.
  init(isKnown name: MachineName) {
    self.init(
      status: 75,
      message:
        "there is a machine '\(name)' already: give other names by --name, or remove that by: "
        + "kvmlite rm \(name)")
  }
}
