import Host
import Machine

/// A kvmlite that has one machine, for this process alone: when the socket is closed by which it takes
/// commands (docs/control.md), whatever the reason, it ends.
///
/// What comes from there may be a guest's that has taken over that process: it is read with bounds.
final class MachineProcess: Sendable {
  /// How it is started.
  struct Settings: Sendable {
    let program: String
    var restartsAtReset = false
    var countsExits = false
    /// The folder of a saved machine, if it goes on with one.
    var folder: String?
  }

  /// How it ended.
  struct End: Sendable {
    /// Its exit status, or 128 and the signal.
    let status: Int32
    /// What it has told of the run's end, and counted.
    let outcome: JSON?
    let statistics: JSON?
    /// Its last words, without its name.
    let words: [String]
  }

  /// What becomes of what it says; all on one thread.
  struct Listener: Sendable {
    let output: @Sendable ([UInt8]) -> Void
    let words: @Sendable (String) -> Void
    let message: @Sendable (JSON) -> Void
    let end: @Sendable (End) -> Void
  }

  private struct Heard {
    var words: [String] = []
    var line: [UInt8] = []
    var outcome: [UInt8] = []
    var statistics: [UInt8] = []
    var unsent: [UInt8] = []
    var isOver = false
  }

  private typealias Ends = (reading: SharedDescriptor, writing: SharedDescriptor)

  private let program: ChildProgram
  private let processEnd: SharedDescriptor?
  private let commands: UnixSocket
  private let typed: UnixSocket
  private let worker: Worker
  private let output: SharedDescriptor
  private let words: SharedDescriptor
  // It opens them by their names in this process, when it has something to say.
  private let outcome: Ends
  private let statistics: Ends
  private let heard = Guarded(Heard())

  private static let mostBytes = 1 << 20
  private static let mostWords = 100
  /// How long a process may take that has closed its socket, in nanoseconds.
  private static let patience: UInt64 = 2_000_000_000

  /// Starts it with the machine of `configuration`, paused; `image` is the contents of its image.
  init(
    _ configuration: VMConfiguration, _ image: [UInt8]?, _ settings: Settings
  ) throws(Errno) {
    var theirCommands: UnixSocket?
    var theirTyped: UnixSocket?
    commands = try UnixSocket(pairedWith: &theirCommands, .messages)
    typed = try UnixSocket(pairedWith: &theirTyped)
    let (output, words) = (try Pipe().shared(), try Pipe().shared())
    (outcome, statistics) = (try Pipe().shared(), try Pipe().shared())
    (self.output, self.words) = (output.reading, words.reading)
    worker = try Worker(name: "child")
    guard let theirCommands, let theirTyped else { throw .invalidArgument }
    var spec = configuration
    var files = [
      SharedDescriptor(try theirTyped.descriptor.duplicate()), output.writing, words.writing,
      SharedDescriptor(try theirCommands.descriptor.duplicate()),
    ]
    if let image {
      spec.image = "/dev/fd/\(files.count + 1)"
      files.append(SharedDescriptor(try Subprocess.makeTemporaryFile(image)))
    }
    try spec.changeDescriptors { number throws(Errno) in
      files.append(SharedDescriptor(try FileDescriptor(borrowing: number).duplicate()))
      return Int32(files.count)
    }
    let text = Array(spec.json.text.utf8)
    files.insert(SharedDescriptor(try Subprocess.makeTemporaryFile(text)), at: 4)
    var arguments = settings.folder.map { ["restore", $0] } ?? ["run", "--config", "/dev/fd/4"]
    arguments += [
      "--control-fd", "3", "--paused", "--outcome-file", Self.name(of: outcome.writing),
    ]
    if settings.countsExits { arguments += ["--stats-file", Self.name(of: statistics.writing)] }
    if !settings.restartsAtReset { arguments.append("--no-reboot") }
    program = try ChildProgram(settings.program, arguments, files: files)
    processEnd = program.makeEndDescriptor()
  }

  private static func name(of file: SharedDescriptor) -> String {
    "/proc/\(LockHolder.currentProcess)/fd/\(file.file.number)"
  }

  // MARK: Listening

  /// Hears what it says from now on, and types what comes to `input`.
  func begin(_ input: ConsoleInputQueue, _ listener: Listener) throws(Errno) {
    try hear(output) { listener.output($0) }
    try hear(words) { [weak self] in self?.note($0, listener) }
    try hear(outcome.reading) { [heard] bytes in
      heard.locked { Self.add(bytes, to: &$0.outcome) }
    }
    try hear(statistics.reading) { [heard] bytes in
      heard.locked { Self.add(bytes, to: &$0.statistics) }
    }
    try worker.watch(input.event) { [weak self] in self?.type(input) }
    try worker.watch(typed.descriptor, on: .socketEdge) { [weak self] in self?.type(input) }
    try worker.watch(commands.descriptor) { [weak self] in self?.receive(listener) }
  }

  /// Reads what comes from `file`, a pipe whose other end this process or that one has.
  private func hear(
    _ file: SharedDescriptor, _ take: @escaping @Sendable ([UInt8]) -> Void
  ) throws(Errno) {
    let place = Guarded(-1)
    let number = try worker.watch(file.file, on: .level) { [worker] in
      guard let bytes = try? file.file.read(atMost: 1 << 16), !bytes.isEmpty else {
        return worker.ignore(file.file, at: place.locked { $0 })
      }
      take(bytes)
    }
    place.locked { $0 = number }
  }

  private static func add(_ bytes: [UInt8], to all: inout [UInt8]) {
    if all.count + bytes.count <= mostBytes { all += bytes }
  }

  /// Takes its words line by line.
  private func note(_ bytes: [UInt8], _ listener: Listener) {
    let lines = heard.locked { heard in
      var lines: [String] = []
      for byte in bytes {
        if byte != 0x0A {
          if heard.line.count < Self.mostBytes { heard.line.append(byte) }
          continue
        }
        let line = String(decoding: heard.line, as: UTF8.self)
        lines.append(line.hasPrefix("kvmlite: ") ? String(line.dropFirst(9)) : line)
        heard.line = []
      }
      heard.words = (heard.words + lines).suffix(Self.mostWords)
      return lines
    }
    for line in lines { listener.words(line) }
  }

  private func receive(_ listener: Listener) {
    var buffer = [UInt8](repeating: 0, count: ControlServer.longestMessage * 4)
    while true {
      var files: [SharedDescriptor] = []
      var span = buffer.mutableSpan
      let count: Int?
      do { count = try commands.receive(into: &span, files: &files) } catch {
        return finish(listener)
      }
      guard let count else { return }
      guard count > 0, let json = try? JSON(parsing: Array(buffer[..<count])) else {
        return finish(listener)
      }
      listener.message(json)
    }
  }

  /// It has ended, or is about to: takes the rest of what it said.
  private func finish(_ listener: Listener) {
    let isFirst = heard.locked { heard in
      defer { heard.isOver = true }
      return !heard.isOver
    }
    guard isFirst else { return }
    commands.end()
    let deadline = Clock.monotonicNanoseconds &+ Self.patience
    let isOver = processEnd?.file.isReadable(until: deadline) ?? false
    let status = isOver ? program.endStatus(waits: true) : nil
    program.stop(politely: false)
    func rest(_ file: SharedDescriptor, until deadline: UInt64 = 0) -> [UInt8] {
      var all: [UInt8] = []
      while file.file.isReadable(until: deadline), let bytes = try? file.file.read(atMost: 1 << 16),
        !bytes.isEmpty, all.count < 64 << 20
      {
        all += bytes
      }
      return all
    }
    listener.output(rest(output))
    // The last ones can be its broker's.
    note(rest(words, until: deadline) + [0x0A], listener)
    let (outcome, statistics) = (rest(outcome.reading), rest(statistics.reading))
    let end = heard.locked { heard in
      Self.add(outcome, to: &heard.outcome)
      Self.add(statistics, to: &heard.statistics)
      return End(
        status: status ?? 128 + 9, outcome: try? JSON(parsing: heard.outcome),
        statistics: try? JSON(parsing: heard.statistics), words: heard.words.filter { !$0.isEmpty })
    }
    listener.end(end)
  }

  // MARK: Telling

  /// Sends a command, which is done after those that were sent before; throws if it has ended.
  func send(
    _ kind: ControlMessage.Kind, id: UInt64, _ members: [(name: String, value: UInt64)] = [],
    flags: [String] = [], files: [SharedDescriptor] = []
  ) throws(Errno) {
    let all =
      [JSON.Member("command", JSON(.string(kind.rawValue)))]
      + (members + [("id", id)]).map { JSON.Member($0.0, JSON(.unsigned($0.1))) }
      + flags.map { JSON.Member($0, JSON(.bool(true))) }
    try commands.send(
      Array(JSON(.object(all)).text.utf8).span, descriptors: files.map { $0.file.number })
  }

  /// Types what waits, as far as there is room.
  private func type(_ input: ConsoleInputQueue) {
    heard.locked { heard in
      heard.unsent += input.take()
      while !heard.unsent.isEmpty, let count = try? typed.sendPart(heard.unsent.span) {
        heard.unsent.removeFirst(count)
      }
    }
  }

  /// Calls `body` when `time` has passed.
  func call(after time: Duration, _ body: @escaping @Sendable () -> Void) {
    let nanoseconds = UInt64(max(0, min(time / .nanoseconds(1), 1e18)))
    _ = try? worker.makeTimer(body).set(Clock.monotonicNanoseconds &+ nanoseconds)
  }

  /// Has it end; the listener hears of that.
  func hangUp() { commands.end() }

  /// Ends it, and everything here.
  func end() {
    hangUp()
    worker.stop()
    program.stop()
  }
}
