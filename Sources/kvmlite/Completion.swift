import Guests
import Lab
import Machine

/// What a shell may put at the end of a command line; scripts/completions has who asks, by
/// `kvmlite __complete WORD...`.
enum Completion {
  /// A word, a tab and what it is, a line each; the line `:files` says that a file's name may come too.
  /// The last of `words` is the one at the cursor, which may be empty.
  static func lines(for words: [String]) -> [String] {
    guard let tree = CommandTree.read() else { return [] }
    let word = words.last ?? ""
    let isHelp = words.first == "help" && words.count > 1
    let place = tree.place(of: words.dropFirst(isHelp ? 1 : 0).dropLast())
    if let option = place.option { return filter(values(of: option), word) }
    if place.takesOptions, word.hasPrefix("-") { return options(place.command, word) }
    var candidates: [Candidate] = []
    if place.positionals.isEmpty {
      candidates = place.command.commands.map { ($0.name, $0.summary) }
    }
    if !isHelp, place.positionals.count < place.command.positionals.count {
      candidates += arguments(place)
    }
    return filter(candidates, word)
  }

  private typealias Candidate = (word: String, what: String)

  private static let files: Candidate = (":files", "")

  private static func filter(_ candidates: [Candidate], _ word: String) -> [String] {
    candidates.filter { $0.word.hasPrefix(word) || $0 == files }.map { candidate in
      candidate.what.isEmpty ? candidate.word : candidate.word + "\t" + sentence(candidate.what)
    }
  }

  /// The first sentence.
  private static func sentence(_ text: String) -> String {
    String(text.split(separator: "\n").first?.split(separator: ". ").first ?? "")
  }

  private static func options(_ command: CommandTree, _ word: String) -> [String] {
    guard let equals = word.firstIndex(of: "="), let option = command.option(word) else {
      let names = command.options.flatMap { option in option.names.map { ($0, option.summary) } }
      return filter(names, word)
    }
    return filter(
      values(of: option).filter { $0 != files }.map { (word[...equals] + $0.word, $0.what) }, word)
  }

  private static func arguments(_ place: CommandTree.Place) -> [Candidate] {
    switch place.path.dropFirst().first {
    case nil, "run", "config": guests(prefix: "guest:") + [files]
    case "guests": guests(prefix: "")
    case "lab": Experiment.all.map { ($0.name, $0.title) }
    case "up": machines() + guests(prefix: "guest:") + [files]
    case "inspect", "attach", "logs", "stop", "kill", "rm", "pause", "resume", "reset", "stats",
      "wait":
      machines()
    case "ls": []
    default: [files]
    }
  }

  private static func guests(prefix: String) -> [Candidate] {
    Guest.all.map { (prefix + $0.name, $0.summary) }
  }

  private static func machines() -> [Candidate] {
    MachineStore().names().map { ($0.description, "a machine") }
  }

  /// What an option takes, as far as that is a name.
  private static func values(of option: CommandTree.Option) -> [Candidate] {
    let words: [String] =
      switch option.names.first {
      case "--device": VMConfiguration.Device.types.filter { !DeviceOptions.own.contains($0) }
      case "--net": ["none", "user", "tap="]
      case "--name": MachineStore().names().map(\.description)
      case "--for": ["running", "text=", "exit"]
      case "--console": ["stdio", "pty", "none", "file="]
      case "--trace": ["io", "mmio", "irq", "requests", "all"]
      default: option.values
      }
    let takesFile = ["file", "path", "image", "base", "answers", "out.json"]
      .contains { option.valueName.hasPrefix($0) }
    return words.map { ($0, "") } + (takesFile ? [files] : [])
  }
}
