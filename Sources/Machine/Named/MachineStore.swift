import Host

/// Where named machines are kept: what stays of each in one directory, and its lock and its socket,
/// which are nobody's once its process is gone, in another.
package struct MachineStore: Sendable {
  /// Each machine's directory is in here.
  package let stateRoot: String
  /// Each machine's lock and socket are in here.
  package let runtimeRoot: String

  /// The user's: $XDG_STATE_HOME and $XDG_RUNTIME_DIR say where, or else the usual places.
  package init() {
    let user = Identity.user
    let state =
      HostEnvironment.variable("XDG_STATE_HOME")
      ?? (user == 0
        ? "/var/lib" : (HostEnvironment.variable("HOME") ?? "") + "/.local/state")
    let runtime = HostEnvironment.variable("XDG_RUNTIME_DIR").map { $0 + "/kvmlite" }
    self.init(
      state: state + "/kvmlite",
      runtime: runtime ?? (user == 0 ? "/run/kvmlite" : "/tmp/kvmlite-\(user)"))
  }

  /// One with these places.
  package init(state: String, runtime: String) {
    stateRoot = state
    runtimeRoot = runtime
  }

  /// Where one machine's files are; none need be there.
  package func places(_ name: MachineName) -> MachinePlaces {
    MachinePlaces(
      name: name, state: "\(stateRoot)/\(name)", runtime: "\(runtimeRoot)/\(name)")
  }

  /// The machines that are known, by name.
  package func names() -> [MachineName] {
    Directory.names(in: stateRoot).compactMap(MachineName.init).filter {
      FileDescriptor.exists(places($0).spec)
    }.sorted()
  }

  /// Whether there is a machine of that name.
  package func knows(_ name: MachineName) -> Bool { FileDescriptor.exists(places(name).spec) }

  /// Makes the machine's directories and takes its lock.
  package func claim(_ name: MachineName) throws(StoreError) -> MachineClaim {
    let places = places(name)
    if places.control.utf8.count > Self.longestSocketPath {
      throw StoreError(places.control, .pathTooLong)
    }
    // Who may write there could put a socket of his own in the place of ours.
    var tries = 0
    while true {
      for path in [runtimeRoot, places.runtime] { try Self.make(path, mayBeOpen: false) }
      for path in [stateRoot, places.state] { try Self.make(path, mayBeOpen: true) }
      do throws(StoreError) { return try MachineClaim(places) } catch {
        // Somebody has just removed the machine.
        guard case .system(.noSuchFile) = error.cause, tries < 10 else { throw error }
        tries += 1
      }
    }
  }

  /// A socket's path has 107 bytes at most; some of it is left for other systems.
  private static let longestSocketPath = 99

  private static func make(_ path: String, mayBeOpen: Bool) throws(StoreError) {
    do { try PrivateDirectory.make(path, mayBeOpen: mayBeOpen) } catch {
      throw StoreError(path, .directory(error))
    }
  }
}

/// The paths of one named machine.
package struct MachinePlaces: Sendable {
  /// Whose.
  package let name: MachineName
  /// What stays.
  package let state: String
  /// What goes with its process.
  package let runtime: String

  /// What it is, as JSON.
  package var spec: String { state + "/spec.json" }
  /// What its guest has printed; the older part is in the same with `.1` behind it.
  package var console: String { state + "/console.log" }
  /// kvmlite's own words when it last ran in the background.
  package var words: String { state + "/kvmlite.log" }
  /// How its last run ended, as JSON; not there while it runs, and after an end that nobody saw.
  package var outcome: String { state + "/outcome.json" }
  /// Locked while its process is there.
  package var lock: String { runtime + "/lock" }
  /// Where it takes commands.
  package var control: String { runtime + "/control.sock" }

  /// Its description, as it was kept.
  package func readSpec() throws(StoreError) -> VMConfiguration {
    let text: [UInt8]
    do throws(Errno) {
      text = try WholeFile.contents(of: spec, limit: UInt64(JSON.Limits().bytes))
    } catch { throw StoreError(spec, .system(error)) }
    do throws(SpecError) { return try VMConfiguration(json: text) } catch {
      throw StoreError(spec, .malformed(error))
    }
  }

  /// Whether a process has the machine, running or about to.
  package var isTaken: Bool {
    guard let file = try? FileDescriptor(opening: lock, [.readOnly]) else { return false }
    return (try? file.isLockedByAnother(0)) ?? false
  }
}

/// A named machine that is this process's, for as long as it holds this: nobody else can run it.
package final class MachineClaim: Sendable {
  /// Where it is.
  package let places: MachinePlaces
  private let lock: FileDescriptor

  fileprivate init(_ places: MachinePlaces) throws(StoreError) {
    self.places = places
    lock = try Self.takeLock(places.lock)
  }

  private static func takeLock(_ path: String) throws(StoreError) -> FileDescriptor {
    do throws(Errno) {
      while true {
        let file = try FileDescriptor(opening: path, [.readWrite, .create], permissions: 0o600)
        try file.lockAlone(0)
        // Who removed the machine meanwhile has taken the name from this file.
        if try file.facts().names > 0 { return file }
      }
    } catch {
      throw StoreError(path, error == .tryAgain ? .inUse : .system(error))
    }
  }

  /// Keeps the machine's description; nothing of it is there if that can't be done.
  package func write(_ spec: VMConfiguration) throws(StoreError) {
    try write(spec.json.text, to: places.spec)
  }

  /// Keeps how the run ended.
  package func write(outcome: String) throws(StoreError) { try write(outcome, to: places.outcome) }

  private func write(_ text: String, to path: String) throws(StoreError) {
    do throws(Errno) {
      let file = try OutputFile(path)
      try file.write(Array(text.utf8))
      try file.commit()
    } catch { throw StoreError(path, .system(error)) }
  }

  /// The paths of all that there is of the machine.
  package func files() -> [String] {
    [places.state, places.runtime].flatMap { directory in
      Directory.names(in: directory).sorted().map { directory + "/" + $0 } + [directory]
    }
  }

  /// Removes all that there is of the machine.
  package func remove() throws(StoreError) {
    do throws(Errno) {
      try PrivateDirectory.remove(places.state)
      try PrivateDirectory.remove(places.runtime)
    } catch { throw StoreError(places.state, .system(error)) }
  }
}

/// Why a named machine's files can't be used.
package struct StoreError: Error, Sendable {
  /// Which file.
  package let path: String
  /// Why.
  package let cause: Cause

  /// What can be wrong.
  package enum Cause: Sendable {
    /// Another process has the machine.
    case inUse
    /// No socket can have a path of that length.
    case pathTooLong
    /// The directory can't be made, or isn't safe.
    case directory(PrivateDirectory.Trouble)
    /// The host's kernel refuses.
    case system(Errno)
    /// What is there is no machine's description.
    case malformed(SpecError)
  }

  init(_ path: String, _ cause: Cause) { (self.path, self.cause) = (path, cause) }
}
