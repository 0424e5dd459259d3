import Devices
import Host
import Memory
import Synchronization

/// A Unix socket for a machine's commands, whose name goes when this does.
package final class ControlSocket: Sendable {
  let listener: UnixListener

  /// Listens at `path`, where nobody may listen yet.
  package init(at path: String) throws(Errno) {
    listener = try UnixListener(at: path, .messages, waits: false)
    // For `status`, when files can't be opened any more.
    ProcessMemory.keepOpen()
  }
}

/// Whoever has a machine for their own: they hold the other end of a socket, and with them it ends.
package final class ControlOwner: Sendable {
  fileprivate let descriptor: FileDescriptor

  /// Takes the open file `number`, a Unix socket of messages: `ENOTSOCK` and `EPROTOTYPE` if it is none.
  package init(_ number: Int32) throws(Errno) {
    descriptor = try UnixSocket.duplicate(number, .messages)
    ProcessMemory.keepOpen()
  }
}

/// Serves a machine's commands at a Unix socket: the only way to its queue from outside the process.
///
/// A message is a JSON object, `{"command": "pause"}`; so is the answer, which has `ok` and, if that is
/// false, `error` (docs/control.md). A message that is too long, malformed, of an unknown kind or with
/// files that it can't have is answered with an error, and nothing else happens; whoever isn't this
/// process's user, or root, is told so and sent away. It has a thread of its own, and waits for nobody:
/// a client that doesn't read its answers is let go.
package final class ControlServer: Sendable {
  /// Bytes of a message.
  package static let longestMessage = 64 << 10
  /// Clients at a time.
  private static let mostClients = 128

  fileprivate final class Client: Sendable {
    let socket: UnixSocket
    let isWelcome: Bool
    let isOwner: Bool
    let place = Atomic(-1)
    /// How often it holds the machine; nil once it has gone.
    let holds = RankedMutex<Int?>(.last, 0)
    init(_ socket: consuming UnixSocket, isOwner: Bool = false) {
      let user = socket.peerUser
      isWelcome = isOwner || user == 0 || user == Identity.original
      self.socket = socket
      self.isOwner = isOwner
    }
  }

  private let socket: ControlSocket?
  private let worker: Worker
  private let machine: CommandQueue
  private let hub: ConsoleHub?
  private let clients = RankedMutex<[Client]>(.last, [])
  /// The machine's way to another process, while it is on it, and for whom.
  private let moving = RankedMutex<(source: MigrationSource, client: Client)?>(.last, nil)

  /// Listens at `socket`, and to the owner, for commands to `machine`, whose console is at `hub`.
  package init(
    at socket: ControlSocket?, owner: ControlOwner? = nil, for machine: CommandQueue,
    _ hub: ConsoleHub? = nil
  ) throws(Errno) {
    self.socket = socket
    self.machine = machine
    self.hub = hub
    worker = try Worker(name: "control")
    if let socket {
      try worker.watch(socket.listener.descriptor) { [weak self] in self?.accept() }
      accept()
    }
    if let owner {
      let client = Client(UnixSocket(try owner.descriptor.duplicate()), isOwner: true)
      clients.withLock { $0.append(client) }
      try watch(client)
    }
  }

  /// That of a run; nil if nobody is to be served.
  convenience init?(_ run: RunOptions, for machine: CommandQueue) throws(Errno) {
    guard run.control != nil || run.owner != nil else { return nil }
    try self.init(at: run.control, owner: run.owner, for: machine, run.hub)
  }

  /// Serves nobody any more; answers that are still to come are lost.
  package func stop() {
    worker.stop()
    clients.withLock { $0 = [] }
    socket?.listener.removeName()
  }

  // MARK: Clients

  private func accept() {
    // Nobody tells again of who waits: an error for now isn't the last word.
    var failures = 0
    while let socket, failures < 3 {
      do throws(Errno) { welcome(Client(try socket.listener.accept())) } catch .tryAgain {
        return
      } catch { failures += 1 }
    }
  }

  private func welcome(_ client: Client) {
    let isRoom = clients.withLock { clients in
      guard clients.count < Self.mostClients else { return false }
      clients.append(client)
      return true
    }
    guard isRoom else { return }
    do throws(Errno) { try watch(client) } catch { drop(client) }
  }

  private func watch(_ client: Client) throws(Errno) {
    let place = try worker.watch(client.socket.descriptor) { [weak self, weak client] in
      if let client { self?.serve(client) }
    }
    client.place.store(place, ordering: .relaxed)
  }

  private func drop(_ client: Client) {
    if client.isOwner { machine.send(.stop(.user)) }
    let holds = client.holds.withLock { holds in
      defer { holds = nil }
      return holds ?? 0
    }
    for _ in 0..<holds { machine.send(.release) }
    moving.withLock { if $0?.client === client { $0?.source.cancel() } }
    let place = client.place.load(ordering: .relaxed)
    if place >= 0 { worker.ignore(client.socket.descriptor, at: place) }
    clients.withLock { clients in clients.removeAll { $0 === client } }
  }

  /// Takes all messages that have come.
  private func serve(_ client: Client) {
    var buffer = [UInt8](repeating: 0, count: Self.longestMessage + 1)
    while true {
      var files: [SharedDescriptor] = []
      var span = buffer.mutableSpan
      let count: Int?
      // Who goes with answers unread leaves an error instead of an end.
      do { count = try client.socket.receive(into: &span, files: &files) } catch {
        return drop(client)
      }
      guard let count else { return }
      guard count > 0 else { return drop(client) }
      guard client.isWelcome else {
        answer(client, .failure("this machine is another user's"))
        return drop(client)
      }
      guard count <= Self.longestMessage else {
        answer(client, .failure("a message has at most \(Self.longestMessage) bytes"))
        continue
      }
      obey(Array(buffer[..<count]), files, client)
    }
  }

  fileprivate func answer(_ client: Client, _ answer: ControlAnswer, to id: JSON? = nil) {
    let bytes = Array(answer.json(id).text.utf8)
    // Who doesn't read isn't waited for.
    do { try client.socket.send(bytes.span) } catch { drop(client) }
  }

  // MARK: Commands

  private func obey(_ bytes: [UInt8], _ files: [SharedDescriptor], _ client: Client) {
    let details = Details()
    do throws(ControlProblem) {
      let message = try ControlMessage(bytes, fileCount: files.count)
      if message.kind == .save { return save(message, files, client) }
      if message.kind == .migrate { return try migrate(message, files[0], client) }
      if message.kind == .migration {
        return answer(client, .success(state: machine.state, moved()), to: message.id)
      }
      guard let command = try command(message, files, details) else {
        return answer(client, .success(state: machine.state, []), to: message.id)
      }
      machine.send(command) { [weak self, weak client, machine] result in
        guard let self, let client else { return }
        let found: ControlAnswer =
          switch result {
          case .success:
            details.members.map { .success(state: machine.state, $0) }
              ?? .failure("there is nothing there")
          case .failure(let error): .failure(error.description)
          }
        answer(client, found, to: message.id)
      }
    } catch { answer(client, .failure(error.message)) }
  }

  /// What a look at the machine found; nil for nothing.
  private final class Details: Sendable {
    private let found = RankedMutex<[JSON.Member]?>(.last, [])
    var members: [JSON.Member]? { found.withLock { $0 } }
    func set(_ members: [JSON.Member]?) { found.withLock { $0 = members } }
  }

  /// What the machine is asked for; nil if the message needed none of it, and is done.
  private func command(
    _ message: ControlMessage, _ files: [SharedDescriptor], _ details: Details
  ) throws(ControlProblem) -> Command? {
    switch message.kind {
    case .pause: return .pause
    case .resume: return .resume
    case .reset: return .reset
    case .stop: return .stop(.user)
    case .timeOut: return .stop(nil)
    case .powerButton: return .powerButton
    case .inspect: return .inspect { details.set(ControlAnswer.description(of: $0)) }
    case .stats: return .inspect { details.set(ControlAnswer.statistics(of: $0)) }
    case .registers:
      let id = message.vcpu
      return .inspect { details.set(ControlAnswer.registers(of: $0, vcpu: id)) }
    case .memory:
      let (address, count) = message.memory
      return .inspect { details.set(ControlAnswer.memory(of: $0, at: address, count: count)) }
    case .status:
      // Walking the process's memory takes a while: not on the machine's thread.
      let process = ControlAnswer.process()
      return .look { details.set(process + ControlAnswer.status(of: $0)) }
    case .attach:
      try attach(message, files)
      return nil
    case .save, .migrate, .migration: return nil
    }
  }

  private func attach(
    _ message: ControlMessage, _ files: [SharedDescriptor]
  ) throws(ControlProblem) {
    guard let hub else {
      throw ControlProblem(message: "this machine's console can't be shown here")
    }
    do throws(Errno) {
      guard
        let socket = try files.first?.file.duplicate(),
        try hub.show(at: UnixSocket(socket), from: message.start, mayType: message.mayType)
      else { throw Errno.busy }
    } catch {
      throw ControlProblem(message: "the console can't be shown to one more: \(error)")
    }
  }
}

// MARK: Saving

extension ControlServer {
  /// Saves the machine to the files of `message`, by a thread of its own, and answers; it goes on unless it
  /// is to stay.
  private func save(_ message: ControlMessage, _ files: [SharedDescriptor], _ client: Client) {
    machine.save { [self] held in
      let error: SaveError?
      do throws(SaveError) {
        let base = message.onto.map { HeldMachine.Onto(path: $0, files: Array(files[2...])) }
        try held.get().write(state: files[0].file, memory: files[1].file, onto: base)
        error = nil
      } catch let reason { error = reason }
      let stays = client.holds.withLock { holds in
        guard message.stays, error == nil, let count = holds else { return false }
        holds = count + 1
        return true
      }
      if !stays { machine.send(.release) }
      let found: ControlAnswer =
        error.map { .failure($0.description) } ?? .success(state: machine.state, [])
      answer(client, found, to: message.id)
    }
  }
}

// MARK: Going elsewhere

extension ControlServer {
  /// Moves the machine to who is at `socket`, by a thread of its own, and answers. If the client goes
  /// meanwhile, it stays.
  private func migrate(
    _ message: ControlMessage, _ socket: SharedDescriptor, _ client: Client
  ) throws(ControlProblem) {
    let source = MigrationSource(machine, over: socket, downtime: message.downtime * 1_000_000)
    try moving.withLock { (moving) throws(ControlProblem) in
      guard moving == nil else { throw ControlProblem(message: "it is on its way already") }
      moving = (source, client)
    }
    let move: @Sendable () -> Void = { [self] in
      let found: ControlAnswer
      do throws(MigrationSource.Trouble) {
        try source.run()
        found = .success(state: machine.state, Self.members(source.progress))
      } catch { found = .failure(error.description) }
      moving.withLock { $0 = nil }
      answer(client, found, to: message.id)
    }
    do throws(Errno) { try HostThread.start(name: "migrate", move).detach() } catch {
      moving.withLock { $0 = nil }
      throw ControlProblem(message: "a thread can't be started: \(error)")
    }
  }

  /// How far that is.
  private func moved() -> [JSON.Member] {
    let source = moving.withLock { $0?.source }
    return Self.members(source?.progress ?? MigrationSource.Progress())
  }

  private static func members(_ progress: MigrationSource.Progress) -> [JSON.Member] {
    [
      ("round", UInt64(progress.round)), ("sent_bytes", progress.sent),
      ("left_bytes", progress.left), ("bytes_per_second", progress.rate),
      ("downtime_us", progress.downtime / 1000),
    ].map { JSON.Member($0.0, JSON(.unsigned($0.1))) }
  }
}
