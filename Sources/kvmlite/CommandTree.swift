import ArgumentParser
import Machine

/// A command with its options and subcommands, as the argument parser knows them.
struct CommandTree {
  /// An option or a flag.
  struct Option {
    /// With their dashes.
    let names: [String]
    let summary: String
    let takesValue: Bool
    /// The values there are, where they can be told; else what kind of thing it takes.
    let values: [String]
    let valueName: String
  }

  let name: String
  let summary: String
  private(set) var options: [Option]
  /// What each argument without dashes is called.
  private(set) var positionals: [String]
  let commands: [CommandTree]

  /// All of kvmlite.
  static func read() -> CommandTree? {
    guard let json = try? JSON(parsing: Array(KVMLite._dumpHelp().utf8)) else { return nil }
    return json["command"].map(CommandTree.init)
  }

  private init(_ json: JSON) {
    let arguments = json["arguments"].list
    commands = json["subcommands"].list.filter { $0["shouldDisplay"] != JSON(.bool(false)) }
      .map(CommandTree.init)
    name = json["commandName"].text
    summary = json["abstract"].text
    options = arguments.filter { $0["kind"].text != "positional" }.map(Option.init)
    positionals = arguments.filter { $0["kind"].text == "positional" }.map { $0["valueName"].text }
    // What the usual subcommand takes needs no name before it.
    let usual = json["defaultSubcommand"].text
    if let usual = commands.first(where: { $0.name == usual }) {
      options = usual.options + options.filter { $0.names.contains("--version") }
      positionals = usual.positionals
    }
  }

  func option(_ word: some StringProtocol) -> Option? {
    let name = String(word.prefix { $0 != "=" })
    return options.first { $0.names.contains(name) }
  }

  /// Where `words` lead to: the command, what of them comes before its arguments, how many arguments
  /// there are, and the option that the next word is the value of.
  struct Place {
    var command: CommandTree
    var path: [String]
    var positionals: [String] = []
    var option: Option?
    var takesOptions = true
  }

  func place(of words: some Sequence<String>) -> Place {
    var place = Place(command: self, path: [name])
    for word in words {
      if place.option != nil {
        place.option = nil
      } else if place.takesOptions, word == "--" {
        place.takesOptions = false
      } else if place.takesOptions, word.hasPrefix("-"), word != "-" {
        let option = place.command.option(word)
        if let option, option.takesValue, !word.contains("="), Arguments.usual[word] == nil {
          place.option = option
        }
      } else if place.positionals.isEmpty,
        let next = place.command.commands.first(where: { $0.name == word })
      {
        place.command = next
        place.path.append(word)
      } else {
        place.positionals.append(word)
      }
    }
    return place
  }
}

extension CommandTree.Option {
  fileprivate init(_ json: JSON) {
    names = json["names"].list.map { ($0["kind"].text == "long" ? "--" : "-") + $0["name"].text }
    summary = json["abstract"].text
    takesValue = json["kind"].text == "option"
    values = json["allValues"].list.map(\.text)
    valueName = json["valueName"].text
  }
}

extension JSON? {
  /// A text; empty for anything else.
  fileprivate var text: String { if case .string(let text)? = self?.value { text } else { "" } }
  /// A list; empty for anything else.
  fileprivate var list: [JSON] { if case .array(let list)? = self?.value { list } else { [] } }
}

extension JSON {
  fileprivate var text: String { Optional(self).text }
}

extension CommandTree {
  /// What may have been meant by a word of `words` that stands where a command's name can; nil if
  /// nothing is like it.
  func meant(by words: [String]) -> String? {
    let place = place(of: words.first == "help" ? words[1...] : words[...])
    let names = place.command.commands.map(\.name)
    for word in place.positionals {
      if let near = Spelling.nearest(to: word, among: names) {
        return (place.path + [near]).joined(separator: " ")
      }
    }
    return nil
  }
}
