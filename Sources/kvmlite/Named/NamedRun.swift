import Host
import Machine

/// One run of a machine that has a name: what others find of it.
final class NamedRun: Sendable {
  private let claim: MachineClaim
  private let hub: ConsoleHub?
  private let isNew: Bool
  private let background: Background?
  private let control: ControlSocket
  /// Where kvmlite's words go in the background.
  private let words: SharedDescriptor?
  private let outcome: Errand
  private let removals: [Errand]

  init(
    _ claim: MachineClaim, _ spec: VMConfiguration, isNew: Bool, _ background: Background?
  ) throws(Failure) {
    self.claim = claim
    self.isNew = isNew
    self.background = background
    let places = claim.places
    do throws(Errno) { control = try ControlSocket(at: places.control) } catch {
      throw Failure(status: 71, message: "\(places.control): can't be listened at: \(error)")
    }
    words =
      background == nil
      ? nil
      : (try? SharedDescriptor(
        FileDescriptor(
          opening: places.words, [.writeOnly, .create, .truncate], permissions: 0o600)))
        ?? (try? SharedDescriptor(FileDescriptor(opening: "/dev/null", [.writeOnly])))
    outcome = Errand(.writeEnd(places.outcome))
    removals = [places.state, places.runtime].map { Errand(.removeDirectory($0)) }
    guard spec.consoles.first?.isStandard == true else {
      hub = nil
      return
    }
    do throws(Errno) {
      hub = try ConsoleHub(try ConsoleRecord(at: claim.places.console)) { Message.note($0) }
    } catch {
      throw Failure(
        status: 71, message: "\(claim.places.console): the console can't be kept: \(error)")
    }
  }

  /// Whether nobody sees its standard output.
  var isInBackground: Bool { background != nil }

  /// The ends of the console that others have.
  var console: Resources.Console? {
    hub.map { Resources.Console(output: .sink($0), input: $0.input) }
  }

  /// Has the machine serve others, and tell whoever waits for it that it runs.
  func prepare(_ run: inout RunOptions) {
    run.control = control
    run.hub = hub
    guard let background else { return }
    let words = words
    run.didStart = { if let words { background.isReady(words: words.file) } }
  }

  /// Keeps how the run ended, and sends all viewers away.
  func end(_ outcome: String) {
    do throws(Errno) {
      let file = try Subprocess.makeTemporaryFile(Array((outcome + "\n").utf8))
      try self.outcome.perform(with: SharedDescriptor(file))
    } catch { Message.note("\(claim.places.outcome): can't be written: \(error)") }
    hub?.end()
  }

  /// The machine could not be made: one that was not known before isn't now.
  func end(didNotStart failure: Failure) {
    guard isNew else {
      let reason = "{\"end\":\"not-started\",\"message\":\(jsonString(failure.message)),"
      return end(reason + "\"status\":\(failure.status)}")
    }
    for removal in removals { _ = try? removal.perform() }
  }
}
