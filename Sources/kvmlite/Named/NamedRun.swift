import Host
import Machine

/// One run of a machine that has a name: what others find of it.
final class NamedRun {
  private let claim: MachineClaim
  private let hub: ConsoleHub?
  private let isNew: Bool
  private let background: Background?

  init(
    _ claim: MachineClaim, _ spec: VMConfiguration, isNew: Bool, _ background: Background?
  ) throws(Failure) {
    self.claim = claim
    self.isNew = isNew
    self.background = background
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
    run.controlPath = claim.places.control
    run.hub = hub
    guard let background else { return }
    let words = claim.places.words
    run.didStart = {
      let place =
        (try? FileDescriptor(opening: words, [.writeOnly, .create, .truncate], permissions: 0o600))
        ?? (try? FileDescriptor(opening: "/dev/null", [.writeOnly]))
      if let place { background.isReady(words: place) }
    }
  }

  /// Keeps how the run ended, and sends all viewers away.
  func end(_ outcome: String) {
    do throws(StoreError) { try claim.write(outcome: outcome + "\n") } catch {
      Message.note(Failure(error, claim.places.name).message)
    }
    hub?.end()
  }

  /// The machine could not be made: one that was not known before isn't now.
  func end(didNotStart failure: Failure) {
    guard isNew else {
      let reason = "{\"end\":\"not-started\",\"message\":\(jsonString(failure.message)),"
      return end(reason + "\"status\":\(failure.status)}")
    }
    try? claim.remove()
  }
}
