import Glibc

/// What is left to do when all in a cgroup of kvmlite's have ended: another process does it.
package struct ControlGroupEnd: Sendable {
  /// What is said of a machine that the kernel ended because it had no more memory.
  package struct Words: Sendable {
    /// A line, for standard error.
    let line: String
    /// What is written where the machine's own end would be (`Errand.Kind.writeEnd`).
    let outcome: String

    package init(line: String, outcome: String) { (self.line, self.outcome) = (line, outcome) }
  }

  private let directory: String
  /// The group of the processes that had to leave `home`; nil if none had to.
  let helpers: String?
  private let home: String
  /// The controllers that `home` has to hand on for them, with spaces between them.
  private let controllers: String
  private let words: Words

  init(_ directory: String, _ place: ControlGroupPlace, _ words: Words) {
    (self.directory, self.words) = (directory, words)
    home = place.parent
    helpers = place.leaving.isEmpty ? nil : directory + "-helpers"
    let added = place.controllers.subtracting(ControlGroupTree.handedOn(by: place.parent))
    controllers = added.map { "-" + $0.rawValue }.joined(separator: " ")
  }

  // MARK: Travelling

  /// As a message: words that each end in a zero.
  var message: [UInt8] {
    [directory, helpers ?? "", home, controllers, words.line, words.outcome]
      .flatMap { Array($0.utf8) + [0] }
  }

  init?(message: ArraySlice<UInt8>) {
    let words = message.split(separator: 0, omittingEmptySubsequences: false)
      .dropLast().map { String(decoding: $0, as: UTF8.self) }
    guard words.count == 6 else { return nil }
    (directory, home, controllers) = (words[0], words[2], words[3])
    helpers = words[1].isEmpty ? nil : words[1]
    self.words = Words(line: words[4], outcome: words[5])
  }

  // MARK: Doing it

  /// If the kernel ended what is in the group, says so to `error`, if there is one, and in the files at
  /// `paths`.
  func tell(_ error: SharedDescriptor?, _ paths: [String]) {
    guard isOutOfMemory else { return }
    if let error, error.file.isWritable(within: 1000) {
      try? error.file.writeAll(words.line + "\n")
    }
    for path in paths { try? Self.write(words.outcome + "\n", path) }
  }

  /// Waits until nobody is in the groups any more, and removes them.
  func removeGroups() {
    ControlGroupTree.remove(directory)
    guard let helpers else { return }
    // As it was before.
    try? ControlGroupTree.write(controllers, to: home + "/cgroup.subtree_control")
    try? ControlGroupTree.write("0", to: home + "/cgroup.procs")
    ControlGroupTree.remove(helpers)
  }

  /// Whether the kernel ended a process in the group because all of them had reached its limit.
  private var isOutOfMemory: Bool {
    let events = ControlGroupTree.text(of: directory + "/memory.events").split(separator: "\n")
    return ["oom ", "oom_kill "].allSatisfy { name in
      events.contains { $0.hasPrefix(name) && !$0.hasSuffix(" 0") }
    }
  }

  private static func write(_ text: String, _ path: String) throws(Errno) {
    let file = try OutputFile(path)
    try file.write(Array(text.utf8))
    try file.commit()
  }
}
