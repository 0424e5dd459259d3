import Host
import Machine
import Synchronization

/// Where a run's machine is saved: at its end, after a crash, or whenever the user wishes.
final class RunSaves: Sendable {
  private struct Place {
    let folder: NewFolder
    let errand: Errand

    /// Refuses a folder that has something else's name, before anything is opened.
    init(_ path: String) throws(Failure) {
      folder = SavedFolder.new(path)
      if let refusal = SavedFolder.refusal(of: folder) {
        throw Failure(status: 64, message: refusal)
      }
      errand = Errand(.renewFolder(folder))
    }

    /// Writes `machine` there, whole or not at all.
    func write(_ machine: HeldMachine) throws(SaveError) {
      do throws(Errno) { try errand.perform(NewFolder.Step.make) } catch { throw .file(error) }
      do throws(SaveError) {
        let (state, memory): (SharedDescriptor?, SharedDescriptor?)
        do throws(Errno) {
          (state, memory) = (try errand.perform(0), try errand.perform(1))
        } catch { throw .file(error) }
        guard let state, let memory else { throw .file(.badDescriptor) }
        try machine.write(state: state.file, memory: memory.file)
        do throws(Errno) { try errand.perform(NewFolder.Step.keep) } catch { throw .file(error) }
      } catch {
        _ = try? errand.perform(NewFolder.Step.remove)
        throw error
      }
    }
  }

  private let atExit: Place?
  private let onCrash: Place?
  private let signals: SignalSource
  private let machine = Mutex<CommandQueue?>(nil)
  private let hasFailed = Atomic(false)

  /// For the places that `settings` name; nil for none. The machine is that of `spec`.
  init?(
    _ settings: Session.Settings, _ spec: VMConfiguration, _ signals: SignalSource
  ) throws(Failure) {
    guard settings.saveAtExit != nil || settings.saveOnCrash != nil else { return nil }
    if let what = spec.unsavable {
      throw Failure(status: 64, message: "the machine can't be saved: \(what)")
    }
    func place(_ path: String?) throws(Failure) -> Place? {
      guard let path else { return nil }
      return try Place(path)
    }
    (atExit, onCrash) = (try place(settings.saveAtExit), try place(settings.saveOnCrash))
    self.signals = signals
  }

  /// Whether something that was to be saved wasn't.
  var failed: Bool { hasFailed.load(ordering: .acquiring) }

  // MARK: At the end

  /// What a run does with its machine when it is over.
  func keep(_ machine: Machine, _ outcome: Outcome) {
    switch outcome {
    case .stopped, .exited: save(machine, outcome, atExit)
    case .timedOut:
      save(machine, outcome, atExit)
      save(machine, outcome, onCrash)
    case .crashed: save(machine, outcome, onCrash)
    default:
      guard let atExit else { return }
      Message.note("not saved to \(atExit.folder.path): a guest that has ended doesn't go on")
    }
  }

  private func save(_ machine: Machine, _ outcome: Outcome, _ place: Place?) {
    guard let place else { return }
    let isDone = Guarded(false)
    let finish: @Sendable (SaveError?) -> Void = { [self] error in
      tell(place, error)
      isDone.locked { $0 = true }
      isDone.wakeAll()
    }
    do throws(SaveError) {
      let held = try HeldMachine(
        machine, end: OutcomeReport(outcome, status: outcome.exitStatus).json())
      do throws(Errno) {
        try HostThread.start(name: "save") {
          do throws(SaveError) {
            try place.write(held)
            finish(nil)
          } catch { finish(error) }
        }.detach()
      } catch { throw .file(error) }
    } catch { return finish(error) }
    // One more signal, and nobody waits for it.
    while !isDone.waits(until: Clock.monotonicNanoseconds &+ 50_000_000, for: { $0 }) {
      if let signal = signals.next(), signal != .user1, signal != .continued {
        hasFailed.store(true, ordering: .releasing)
        _ = try? place.errand.perform(NewFolder.Step.remove)
        return Message.note("not saved to \(place.folder.path): interrupted")
      }
    }
  }

  private func tell(_ place: Place, _ error: SaveError?) {
    guard let error else {
      return Message.note("saved: kvmlite restore \(place.folder.path) goes on")
    }
    hasFailed.store(true, ordering: .releasing)
    Message.error("\(place.folder.path): \(error)")
  }

  // MARK: Meanwhile

  /// Whose machine it is, from now on.
  func serve(_ machine: CommandQueue) { self.machine.withLock { $0 = machine } }

  /// Saves the machine, which goes on after that.
  func saveNow() {
    guard let atExit, let machine = machine.withLock({ $0 }) else { return Self.tellHow() }
    machine.save { [self] held in
      do throws(SaveError) {
        try atExit.write(held.get())
        tell(atExit, nil)
      } catch { tell(atExit, error) }
      machine.send(.release)
    }
  }

  /// Says what is missing.
  static func tellHow() {
    Message.note("there is no place to save the machine to: start it with --save-at-exit FOLDER")
  }
}
