import ArgumentParser
import Host
import Machine

/// The options of a machine that others can find.
struct NameOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Give the machine a name, by which others find it: see kvmlite ls.", valueName: "name"),
    transform: { try NameOptions.read($0) })
  var name: MachineName?

  @Flag(help: "Let it stand still until it is resumed.")
  var paused = false

  static func read(_ text: String) throws -> MachineName {
    guard let name = MachineName(text) else {
      throw ValidationError(
        "'\(text)' can't be a machine's name: use up to \(MachineName.longest) letters, digits, "
          + "dots, dashes and underscores, and begin with a letter or a digit")
    }
    return name
  }
}

/// The option by which another process has a machine for its own.
struct OwnerOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Take commands from the open file of that number, one end of a socketpair(2) of messages, and end \
      the run when its other end is closed.
      """, valueName: "number"),
    transform: { try OwnerOptions.read($0) })
  var controlFd: ControlOwner?

  private static func read(_ text: String) throws -> ControlOwner {
    guard let number = Int32(text), number > 2 else {
      throw ValidationError("'\(text)' is no open file's number: give one above 2")
    }
    do throws(Errno) { return try ControlOwner(number) } catch {
      throw ValidationError("file \(number) can't take commands, as a Unix socket can: \(error)")
    }
  }

  /// Refuses what only makes sense with a name, or without one.
  func check(_ named: NameOptions) throws {
    if named.name != nil {
      guard controlFd == nil else {
        Message.error("--control-fd is for a machine without a name: leave one of both out")
        throw ExitCode(64)
      }
    } else if named.paused && controlFd == nil {
      Message.error("--paused is for a machine that others can resume: give it a name by --name")
      throw ExitCode(64)
    }
  }
}

/// Starts a machine that has a name, or is given one.
struct NamedStart {
  private enum Source {
    case options(MachineOptions)
    /// It goes on where it stood.
    case saved(VMConfiguration, Session.Origin)
    /// It does so beside others, as the one of that number.
    case clone(Int, VMConfiguration, SavedFolder.Opened, countsAbsence: Bool)
  }

  private let machine: Source
  private let process: ProcessOptions
  private let options: NameOptions
  private let store = MachineStore()
  private var name: MachineName?

  /// Whoever names a machine that is known, by --name or in the image's place, means that one.
  init(_ machine: MachineOptions, _ process: ProcessOptions, _ options: NameOptions) {
    var machine = machine
    self.process = process
    self.options = options
    name = options.name
    if machine.config == nil, machine.firmware == nil {
      if name == nil, let word = machine.image.flatMap(MachineName.init), store.knows(word) {
        name = word
        machine.image = nil
      }
      if let name, machine.image == nil, store.knows(name) {
        machine.config = store.places(name).spec
      }
    }
    self.machine = .options(machine)
  }

  /// The machine of `spec` goes on where it was `saved`.
  init(
    _ spec: VMConfiguration, from saved: Session.Origin, _ process: ProcessOptions,
    _ options: NameOptions
  ) {
    self.process = process
    self.options = options
    machine = .saved(spec, saved)
    name = options.name
  }

  /// Of several machines that go on where the one of `spec` was `saved`, that of this number, as `name`.
  init(
    clone number: Int, of spec: VMConfiguration, from saved: SavedFolder.Opened,
    countsAbsence: Bool, as name: MachineName, _ process: ProcessOptions, _ options: NameOptions
  ) {
    self.process = process
    self.options = options
    machine = .clone(number, spec, saved, countsAbsence: countsAbsence)
    self.name = name
  }

  /// Runs it to its end. In the background that is another process, and this one ends when it runs.
  func run(inBackground: Bool) throws -> Never {
    var spec =
      switch machine {
      case .options(let options): try options.read()
      case .saved(let spec, _), .clone(_, let spec, _, _): spec
      }
    spec.changePaths(FileName.absolute)
    if inBackground { InheritedFiles.close(but: spec.descriptors) }
    try ending { () throws(Failure) in
      guard !inBackground || process.trace == nil else {
        throw Failure(
          status: 64, message: "--trace has no terminal in the background: use --trace-file FILE")
      }
      let claim = try claim(for: spec)
      let (own, origin) = try settle(spec, claim)
      let isNew = try keep(own, claim)
      return try run(own, origin, claim, isNew: isNew, inBackground: inBackground)
    }
  }

  /// What the machine of `claim` is, and where it goes on.
  private func settle(
    _ spec: VMConfiguration, _ claim: MachineClaim
  ) throws(Failure) -> (VMConfiguration, Session.Origin?) {
    switch machine {
    case .options: return (spec, nil)
    case .saved(_, let origin): return (spec, origin)
    case .clone(let number, _, let saved, let countsAbsence):
      let name = claim.places.name
      guard !store.knows(name) else { throw Failure(isKnown: name) }
      do throws(Failure) {
        let (own, opened) = try saved.clone(number, of: spec, at: claim.places)
        return (own, Session.Origin(opened, countsAbsence: countsAbsence))
      } catch {
        try? claim.remove()
        throw error
      }
    }
  }

  /// Takes the machine's name, or one that is free.
  private func claim(for spec: VMConfiguration) throws(Failure) -> MachineClaim {
    if let name { return try claim(name) }
    let stem = MachineName(for: spec.image ?? spec.firmware ?? "")
    for number in 1...10_000 {
      guard let name = number == 1 ? stem : stem.numbered(number), !store.knows(name) else {
        continue
      }
      do throws(StoreError) { return try store.claim(name) } catch {
        guard case .inUse = error.cause else { throw Failure(error, name) }
      }
    }
    throw Failure(status: 75, message: "all names like '\(stem)' are in use: give one by --name")
  }

  private func claim(_ name: MachineName) throws(Failure) -> MachineClaim {
    do throws(StoreError) { return try store.claim(name) } catch { throw Failure(error, name) }
  }

  /// Keeps the description; true if there was none.
  private func keep(_ spec: VMConfiguration, _ claim: MachineClaim) throws(Failure) -> Bool {
    let (places, name) = (claim.places, claim.places.name)
    do throws(StoreError) {
      guard store.knows(name) else {
        try claim.write(spec)
        return true
      }
      if try places.readSpec() == spec {
        FileName.remove(places.outcome)
        return false
      }
    } catch {
      if !store.knows(name) { try? claim.remove() }
      throw Failure(error, name)
    }
    throw Failure(
      status: 75,
      message: "the machine '\(name)' is another one (see: kvmlite inspect \(name)): give this one "
        + "another name, or remove that by: kvmlite rm \(name)")
  }

  private func run(
    _ spec: VMConfiguration, _ origin: Session.Origin?, _ claim: MachineClaim, isNew: Bool,
    inBackground: Bool
  ) throws(Failure) -> Int32 {
    var background: Background?
    if inBackground {
      do throws(Errno) {
        background = try Background { (try? Message.output("\(claim.places.name)\n")) != nil }
      } catch { throw Failure(status: 71, message: "no process can be started: \(error)") }
    }
    var settings = process.settings
    settings.origin = origin
    settings.isFromFile =
      if case .options(let options) = machine { options.config != nil } else { true }
    settings.isPaused = options.paused
    settings.isNamed = true
    settings.confinement = try RunSandbox(settings, spec)
    settings.named = try NamedRun(claim, spec, isNew: isNew, background)
    return Session(spec, settings).run()
  }
}

/// Does what a command is for, and ends with the status that `body` gives, or with what went wrong.
func ending(_ body: () throws(Failure) -> Int32) throws -> Never {
  let status: Int32
  do throws(Failure) { status = try body() } catch {
    Message.error(error.message)
    throw ExitCode(error.status)
  }
  throw ExitCode(status)
}

extension Failure {
  /// Why the files of the machine `name` can't be used, with what mends it.
  init(_ error: StoreError, _ name: MachineName) {
    let path = error.path
    switch error.cause {
    case .inUse:
      self.init(
        status: 75,
        message: "the machine '\(name)' runs already (see: kvmlite attach \(name)): give this one "
          + "another name by --name")
    case .pathTooLong:
      self.init(
        status: 71,
        message: "\(path): a socket's path can't be that long: set XDG_RUNTIME_DIR to a shorter one"
      )
    case .directory(.isOwned(let user)):
      self.init(
        status: 77,
        message: "\(path): belongs to user \(user), not to you: move it out of the way, or set "
          + "XDG_RUNTIME_DIR or XDG_STATE_HOME to a directory of yours")
    case .directory(.isOpen):
      self.init(
        status: 77, message: "\(path): others have rights to it, which isn't safe: chmod 700 it")
    case .directory(.isNone):
      self.init(status: 71, message: "\(path): is no directory: move it out of the way")
    case .directory(.system(let errno)), .system(let errno):
      let isRight = [.accessDenied, .notPermitted, .readOnlyFileSystem].contains(errno)
      self.init(status: isRight ? 77 : 71, message: "\(path): can't be used: \(errno)")
    case .malformed(let error):
      let place = error.position.map { "\($0):" } ?? ""
      self.init(status: 65, message: "\(path):\(place) \(error.message)")
    }
  }
}
