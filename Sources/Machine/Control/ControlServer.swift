import Devices
import Host
import Memory
import Synchronization

/// Serves a machine's commands at a Unix socket: the only way to its queue from outside the process.
///
/// A message is a JSON object, `{"command": "pause"}`; so is the answer, which has `ok` and, if that is
/// false, `error` (docs/control.md). A message that is too long, malformed, of an unknown kind or with
/// files is answered with an error, and nothing else happens; who isn't this process's user, or root,
/// is sent away. It has a thread of its own, and waits for nobody: a client that doesn't read its
/// answers is let go.
package final class ControlServer: Sendable {
  /// Bytes of a message.
  package static let longestMessage = 64 << 10
  /// Clients at a time.
  private static let mostClients = 128

  private final class Client: Sendable {
    let socket: UnixSocket
    let place = Atomic(-1)
    init(_ socket: consuming UnixSocket) { self.socket = socket }
  }

  private let listener: UnixListener
  private let worker: Worker
  private let machine: CommandQueue
  private let clients = RankedMutex<[Client]>(.last, [])

  /// Listens at `path`, which goes when this does, for commands to `machine`.
  package init(at path: String, for machine: CommandQueue) throws(Errno) {
    listener = try UnixListener(at: path, .messages, waits: false)
    self.machine = machine
    worker = try Worker(name: "control")
    try worker.watch(listener.descriptor) { [weak self] in self?.accept() }
    accept()
  }

  /// Serves nobody any more; answers that are still to come are lost.
  package func stop() {
    worker.stop()
    clients.withLock { $0 = [] }
    listener.removeName()
  }

  // MARK: Clients

  private func accept() {
    while let socket = try? listener.accept() {
      let user = socket.peerUser
      guard user == 0 || user == Identity.user else { continue }
      let client = Client(socket)
      let isRoom = clients.withLock { clients in
        guard clients.count < Self.mostClients else { return false }
        clients.append(client)
        return true
      }
      guard isRoom else { continue }
      do throws(Errno) {
        let place = try worker.watch(client.socket.descriptor) { [weak self, weak client] in
          if let client { self?.serve(client) }
        }
        client.place.store(place, ordering: .relaxed)
      } catch { drop(client) }
    }
  }

  private func drop(_ client: Client) {
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
      guard count <= Self.longestMessage else {
        answer(client, .failure("a message has at most \(Self.longestMessage) bytes"))
        continue
      }
      guard files.isEmpty else {
        answer(client, .failure("no command takes files"))
        continue
      }
      obey(Array(buffer[..<count]), client)
    }
  }

  private func answer(_ client: Client, _ answer: ControlAnswer) {
    let bytes = Array(answer.json.text.utf8)
    // Who doesn't read isn't waited for.
    do { try client.socket.send(bytes.span) } catch { drop(client) }
  }

  // MARK: Commands

  private func obey(_ message: [UInt8], _ client: Client) {
    let command: Command
    let details = Details()
    do throws(ControlProblem) {
      command = try Self.command(message, details)
    } catch { return answer(client, .failure(error.message)) }
    machine.send(command) { [weak self, weak client, machine] result in
      guard let self, let client else { return }
      switch result {
      case .success: answer(client, .success(state: machine.state, details.members))
      case .failure(let error): answer(client, .failure(error.description))
      }
    }
  }

  /// What an inspection found.
  fileprivate final class Details: Sendable {
    private let found = RankedMutex<[JSON.Member]>(.last, [])
    var members: [JSON.Member] { found.withLock { $0 } }
    func set(_ members: [JSON.Member]) { found.withLock { $0 = members } }
  }

  /// The commands by name. docs/control.md lists them, and a test holds the page against this.
  package static let commands = [
    "pause", "resume", "reset", "stop", "power-button", "inspect", "stats",
  ]

  private static func command(
    _ message: [UInt8], _ details: Details
  ) throws(ControlProblem) -> Command {
    var limits = JSON.Limits()
    (limits.depth, limits.values) = (4, 64)
    let json: JSON
    do throws(JSON.Malformed) { json = try JSON(parsing: message, limits) } catch {
      throw ControlProblem(message: "no JSON at \(error.position): \(error.message)")
    }
    guard case .object(let members) = json.value else {
      throw ControlProblem(message: "a message is an object, such as {\"command\": \"pause\"}")
    }
    if let other = members.first(where: { $0.name != "command" }) {
      throw ControlProblem(message: "no message has '\(other.name.prefix(64))'")
    }
    guard case .string(let name)? = members.first?.value.value else {
      throw ControlProblem(message: "a message names its command, a string")
    }
    switch name {
    case "pause": return .pause
    case "resume": return .resume
    case "reset": return .reset
    case "stop": return .stop(.user)
    case "power-button": return .powerButton
    case "inspect": return .inspect { details.set(ControlAnswer.description(of: $0)) }
    case "stats": return .inspect { details.set(ControlAnswer.statistics(of: $0)) }
    default:
      let hint = Spelling.hint(String(name.prefix(64)), among: commands)
      throw ControlProblem(message: "there is no command '\(name.prefix(64))'\(hint)")
    }
  }
}

private struct ControlProblem: Error {
  let message: String
}
