import ArgumentParser
import Glibc
import Host
import Inspect
import Machine
import Sandbox

/// How far a run is confined.
enum SandboxMode: String, CaseIterable, ExpressibleByArgument, Sendable {
  /// As far as the host can.
  case on
  /// Likewise, but a system call that isn't allowed is noted, and made.
  case log
  /// Not at all.
  case off
}

/// The confinement of one run: what is made ready before anything is opened, and entered after that.
final class RunSandbox: Sendable {
  private let mode: SandboxMode
  private let user: Confinement.User?
  private let isUserAskedFor: Bool
  private let namespaces: Namespaces?
  private let violation: SharedEvent?
  private let limits: MachineLimits?
  /// Whether making the machine starts no thread and touches nothing of the host's: then the sandbox can
  /// close behind it, and making it hides the time that namespaces take.
  let isSmall: Bool

  private final class SharedEvent: Sendable {
    let event: Event
    init() throws(Errno) { event = try Event() }
  }

  /// For a machine of `spec`. This process has no other threads, and has opened nothing for it yet.
  convenience init(_ settings: Session.Settings, _ spec: VMConfiguration) throws(Failure) {
    try self.init(
      settings.sandbox, user: settings.user,
      isSmall: spec.devices.isEmpty && !settings.isNamed && settings.owner == nil
        && settings.traceFile == nil,
      // A tap's interface and passt's programs are in the host's network.
      keepsNetwork: spec.devices.contains {
        $0.net.isUser || $0.net.tap != nil || $0.net.descriptor != nil
      },
      violation: true,
      // Whoever starts one in the background waits for the end of its standard error.
      limits: spec.limits == VMConfiguration.Limits()
        ? nil : { MachineLimits(spec, $0, error: settings.isNamed ? nil : 2) })
    if mode != .off { CrashAccount.prepare() }
  }

  /// For a process that serves the machines of others, likewise.
  convenience init(_ options: SandboxOptions) throws(Failure) {
    try self.init(
      options.sandbox, user: options.user, isSmall: false, keepsNetwork: false,
      // The thread that it happens on says so itself.
      violation: false, limits: nil)
  }

  private init(
    _ mode: SandboxMode, user: Confinement.User?, isSmall: Bool, keepsNetwork: Bool,
    violation isTold: Bool, limits: ((Broker) -> MachineLimits)?
  ) throws(Failure) {
    self.mode = mode
    self.isSmall = isSmall
    self.user = Identity.original == 0 ? user ?? .unshared : nil
    isUserAskedFor = user != nil && Identity.original == 0
    guard mode != .off || limits != nil else {
      Broker.dismiss()
      (namespaces, violation, self.limits) = (nil, nil, nil)
      return
    }
    do throws(Errno) {
      let broker = if let early = Broker.current { early } else { try Self.startBroker() }
      // Before anything is made that counts.
      self.limits = limits?(broker)
      guard mode != .off else {
        (namespaces, violation) = (nil, nil)
        return
      }
      violation = isTold ? try SharedEvent() : nil
      try broker.namespaces.begin(Confinement.kinds(keepsNetwork: keepsNetwork))
      namespaces = broker.namespaces
    } catch { throw Failure(status: 71, message: "the sandbox can't be prepared: \(error)") }
  }

  /// Starts what a run needs of other processes, before options are read: a copy of this process costs the
  /// less, the less it has done. Where that fails, `init` says so.
  static func prepare() { _ = try? startBroker() }

  private static func startBroker() throws(Errno) -> Broker {
    try Broker.start {
      ChildProgram.Confinement(
        SystemCalls.helperFilter,
        user: Identity.original == 0 ? Confinement.User.unshared.user : nil)
    }
  }

  /// Gives up all that the run doesn't need: nothing of the guest has run yet, and all is open.
  func enter(isVerbose: Bool) throws(Failure) {
    let limited = limited()
    limits?.tell(limited)
    let layers = try layers() ?? []
    if isUserAskedFor, let lack = layers.first(where: { $0.kind == .user })?.lack {
      throw Failure(status: 71, message: "can't become the user that --user names: \(lack)")
    }
    for layer in layers { Self.tell(layer) }
    guard isVerbose else { return }
    if mode == .off {
      Message.note("the sandbox is off: a guest that breaks out has your rights")
    }
    if !(limited + layers).isEmpty { Message.heading("Sandbox") }
    for layer in limited + layers {
      Message.line("  " + column(layer.name, 28) + (layer.lack.map { "no: \($0)" } ?? "yes"))
    }
  }

  /// Limits what the host gives this process, as the machine asks for it; returns what there was to limit.
  func limited() -> [Confinement.Layer] { limits?.finish() ?? [] }

  /// Says of a layer that isn't there what the others don't make up for.
  static func tell(_ layer: Confinement.Layer) {
    guard let lack = layer.lack, [.systemCalls, .user].contains(layer.kind) else { return }
    Message.note(
      "the sandbox lacks a layer, \(layer.name): \(lack); the rest stands (see: kvmlite doctor)")
  }

  /// Does that, and returns what there was to give up; nil if the sandbox is off.
  func layers() throws(Failure) -> [Confinement.Layer]? {
    guard mode != .off else { return nil }
    do throws(Errno) { try Broker.current?.seal() } catch {
      throw Failure(status: 71, message: "the sandbox can't be entered: \(error)")
    }
    InheritedFiles.close()
    var confinement = Confinement()
    confinement.user = user
    confinement.onlyNotes = mode == .log
    confinement.startsWorkers = !isSmall
    let exempt = mode == .log ? Violation.exemptAddress : nil
    let process = getpid()
    ThreadFilters.set { SystemCalls.filter(for: $0, process: process, exempt: exempt) }
    do throws(Errno) {
      return try confinement.enter(namespaces, violation: violation?.event.descriptor.number)
    } catch { throw Failure(status: 71, message: "the sandbox can't be entered: \(error)") }
  }

  /// What is done when a thread makes a system call that it has no right to.
  func watch(_ run: inout RunOptions, ends: @escaping @Sendable (String) -> Void) {
    guard let violation else { return }
    run.violation = (
      violation.event.descriptor.number,
      { machine in
        Terminal.restoreNow()
        let what = Violation.first ?? "a thread made a system call"
        Message.error("sandbox: \(what)")
        if !machine.lastExits.isEmpty { Message.heading("Last exits of each VCPU, oldest first:") }
        for line in machine.lastExits { Message.line(line) }
        Message.line(
          "  No guest can bring kvmlite to that unless it has taken over this process; an update of "
            + "the C library can.")
        Message.line(
          "  Please report it with the lines above. To go on all the same: --sandbox log")
        ends(what)
        _exit(71)
      }
    )
  }
}
