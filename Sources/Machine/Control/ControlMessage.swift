import Host

/// What a client of a machine's control socket asks for.
///
/// docs/control.md lists the kinds with their members, and a test holds the page against this.
package struct ControlMessage: Sendable {
  /// The kinds, by the names that they have in messages.
  package enum Kind: String, CaseIterable, Sendable {
    case pause, resume, reset, stop
    case powerButton = "power-button"
    case timeOut = "time-out"
    case inspect, stats, status, registers, memory, attach, save, migrate, migration

    /// The members that a message may have besides its command and `id`.
    package var members: [String] {
      switch self {
      case .attach: ["from", "input"]
      case .registers: ["vcpu"]
      case .memory: ["address", "count"]
      case .save: ["stay", "onto"]
      case .migrate: ["downtime"]
      default: []
      }
    }
    /// How many files come with it, at least.
    package var fileCount: Int {
      switch self {
      case .attach, .migrate: 1
      case .save: 2
      default: 0
      }
    }
  }

  /// What is to be done.
  package let kind: Kind
  /// What the answer is known by (`id`).
  let id: JSON?
  /// Whose registers are asked for (`vcpu`).
  let vcpu: Int
  /// Which memory is asked for: `count` bytes from `address` on.
  let memory: (address: UInt64, count: Int)
  /// Where the console is shown from (`from`).
  let start: ConsoleHub.Start
  /// Whether what comes from there is for the guest (`input`).
  let mayType: Bool
  /// Whether the machine stands still after a save until the client ends it or goes (`stay`).
  let stays: Bool
  /// The folder of the save whose pages aren't written again, as the new one is to know it (`onto`). Its
  /// two files come behind the others, and those of the saves that it needs.
  let onto: String?

  /// How long it may stand still when it goes to another process, in milliseconds (`downtime`).
  let downtime: UInt64

  /// Bytes of memory in an answer.
  package static let mostMemory = 16 << 10

  /// Reads a message that came with so many files.
  init(_ bytes: [UInt8], fileCount: Int) throws(ControlProblem) {
    var limits = JSON.Limits()
    (limits.depth, limits.values) = (4, 64)
    let json: JSON
    do throws(JSON.Malformed) { json = try JSON(parsing: bytes, limits) } catch {
      throw ControlProblem(message: "no JSON at \(error.position): \(error.message)")
    }
    guard let members = json.members else {
      throw ControlProblem(message: "a message is an object, such as {\"command\": \"pause\"}")
    }
    guard case .string(let name)? = json["command"]?.value else {
      throw ControlProblem(message: "a message names its command, a string")
    }
    kind = try Self.kind(name)
    for member in members
    where !["command", "id"].contains(member.name) && !kind.members.contains(member.name) {
      let hint = Spelling.hint(member.name, among: kind.members)
      throw ControlProblem(message: "\(kind.rawValue) has no \(JSON.shown(member.name))\(hint)")
    }
    onto = try Self.path(json["onto"], "onto")
    let isRight =
      onto == nil ? fileCount == kind.fileCount : fileCount > kind.fileCount && fileCount % 2 == 0
    guard isRight else {
      let due =
        onto == nil
        ? ["no files", "one file", "two files"][kind.fileCount] : "two files for each save"
      throw ControlProblem(message: "\(kind.rawValue) takes \(due); \(fileCount) came")
    }
    id = try json["id"].map { (json) throws(ControlProblem) in
      JSON(.unsigned(try Self.number(json, "id", .max)))
    }
    vcpu = Int(try Self.number(json["vcpu"], "vcpu", 1 << 16))
    memory = (
      try Self.number(json["address"], "address", .max),
      Int(try Self.number(json["count"], "count", UInt64(Self.mostMemory)))
    )
    start = try Self.start(json["from"])
    mayType = try Self.flag(json["input"], "input", usual: true)
    downtime =
      try json["downtime"].map { (json) throws(ControlProblem) in
        try Self.number(json, "downtime", 3_600_000)
      } ?? 300
    stays = try Self.flag(json["stay"], "stay", usual: false)
  }

  private static func kind(_ name: String) throws(ControlProblem) -> Kind {
    if let kind = Kind(rawValue: name) { return kind }
    let hint = Spelling.hint(String(name.prefix(64)), among: Kind.allCases.map(\.rawValue))
    throw ControlProblem(message: "there is no command \(JSON.shown(name))\(hint)")
  }

  /// A number up to `limit`; 0 where there is none.
  private static func number(
    _ json: JSON?, _ name: String, _ limit: UInt64
  ) throws(ControlProblem) -> UInt64 {
    guard let json else { return 0 }
    guard case .unsigned(let number) = json.value, number <= limit else {
      throw ControlProblem(message: "\(name) is a number from 0 to \(limit)")
    }
    return number
  }

  private static func start(_ json: JSON?) throws(ControlProblem) -> ConsoleHub.Start {
    guard let json else { return .missed }
    if case .string(let text) = json.value, let start = ConsoleHub.Start(rawValue: text) {
      return start
    }
    let words = ConsoleHub.Start.allCases.map { JSON.quoted($0.rawValue) }
    throw ControlProblem(message: "from is one of \(words.joined(separator: ", "))")
  }

  private static func path(_ json: JSON?, _ name: String) throws(ControlProblem) -> String? {
    guard let json else { return nil }
    guard case .string(let path) = json.value, (1...4096).contains(path.utf8.count) else {
      throw ControlProblem(message: "\(name) is a path")
    }
    return path
  }

  private static func flag(
    _ json: JSON?, _ name: String, usual: Bool
  ) throws(ControlProblem) -> Bool {
    guard let json else { return usual }
    guard case .bool(let flag) = json.value else {
      throw ControlProblem(message: "\(name) is true or false")
    }
    return flag
  }
}

/// Why a message is refused.
struct ControlProblem: Error {
  let message: String
}
