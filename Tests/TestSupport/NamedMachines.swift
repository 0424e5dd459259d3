import Foundation

/// Machines by name, in directories of their own; all of them are gone after the test.
package final class NamedMachines {
  /// The directory that all of it is in.
  package let path: String

  /// No machines.
  package init() throws {
    // A socket's path has little room.
    path = "/tmp/kvmlite-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit {
    for name in (try? names()) ?? [] { _ = try? run("rm", "--force", name) }
    try? FileManager.default.removeItem(atPath: path)
  }

  /// What tells kvmlite of the directories.
  package var environment: [String: String] {
    ["XDG_STATE_HOME": path + "/state", "XDG_RUNTIME_DIR": path + "/run"]
  }

  /// Writes a file and returns its path.
  package func file(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(filePath: path + "/" + name))
    return path + "/" + name
  }

  /// Starts kvmlite. A machine that it starts has an end even if the test has none.
  package func start(
    _ arguments: [String], input: ChildProcess.Input = .null, deadline: Deadline = Deadline()
  ) throws -> ChildProcess {
    let limit = arguments.first == "up" ? ["--timeout", "1000"] : []
    return try ChildProcess(
      Kvmlite.path, arguments.prefix(1) + limit + arguments.dropFirst(), input: input,
      environment: environment, deadline: deadline)
  }

  /// Runs kvmlite to its end.
  @discardableResult
  package func run(
    _ arguments: String..., input: ChildProcess.Input = .null
  ) throws -> Kvmlite.Result {
    try Kvmlite.end(of: start(arguments, input: input))
  }

  /// Runs kvmlite by a shell, after `setup`.
  package func run(_ arguments: [String], after setup: String) throws -> Kvmlite.Result {
    try Kvmlite.end(
      of: ChildProcess(
        "/bin/sh", ["-c", setup + "; exec \"$0\" \"$@\"", Kvmlite.path] + arguments,
        environment: environment))
  }

  /// What `ls` says of each machine.
  package func list() throws -> [String: [String: Any]] {
    let text = try run("ls", "--json").output
    guard !text.isEmpty else { return [:] }
    let machines = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [[String: Any]]
    return Dictionary(
      uniqueKeysWithValues: (machines ?? []).compactMap { machine in
        (machine["name"] as? String).map { ($0, machine) }
      })
  }

  /// The machines that are known.
  package func names() throws -> [String] { try list().keys.sorted() }

  /// What the machine is doing.
  package func state(_ name: String) throws -> String? { try list()[name]?["state"] as? String }

  /// The process that runs it.
  package func process(_ name: String) throws -> pid_t {
    pid_t(try list()[name]?["pid"] as? Int ?? 0)
  }
}
