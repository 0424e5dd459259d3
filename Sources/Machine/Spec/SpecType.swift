/// How a value of a spec is read, printed, and described.
struct SpecType<Value: Sendable>: Sendable {
  /// What it takes, for messages and the docs.
  let words: String
  /// The value that `json` spells; nil if it doesn't spell one.
  let read: @Sendable (JSON) throws(SpecError) -> Value?
  /// The value as JSON.
  let print: @Sendable (Value) -> JSON
  /// What a setting of an option means: its text, nil where it has no value.
  var setting: @Sendable (String?) -> JSON = { JSON(.string($0 ?? "")) }
}

extension SpecType where Value == Bool {
  /// True or false; as a setting it needs no value.
  static let flag = SpecType(
    words: "true or false",
    read: { (json) throws(SpecError) in if case .bool(let bool) = json.value { bool } else { nil }
    },
    print: { JSON(.bool($0)) },
    setting: { text in
      switch text {
      case nil, "true": JSON(.bool(true))
      case "false": JSON(.bool(false))
      case let text?: JSON(.string(text))
      }
    })
}

extension SpecType where Value == String {
  /// A text that isn't empty, of up to `most` bytes which `allows` allows.
  static func text(
    _ words: String, most: Int = 4096, _ allows: @escaping @Sendable (UInt8) -> Bool = { $0 != 0 }
  ) -> SpecType {
    SpecType(
      words: words,
      read: { (json) throws(SpecError) in
        guard case .string(let text) = json.value, (1...most).contains(text.utf8.count),
          text.utf8.allSatisfy(allows)
        else { return nil }
        return text
      },
      print: { JSON(.string($0)) })
  }

  static let path = text("a path")
}

extension SpecType<Int32> {
  /// A file that whoever starts the process left open.
  static let descriptor = number(3...1023, "an open file's number")
}

extension SpecType where Value: FixedWidthInteger {
  /// A whole number of `range`.
  static func number(_ range: ClosedRange<Value>, _ what: String = "a number") -> SpecType {
    SpecType(
      words: "\(what) from \(range.lowerBound) to \(range.upperBound)",
      read: { (json) throws(SpecError) in
        guard case .unsigned(let number) = json.value, let value = Value(exactly: number),
          range.contains(value)
        else { return nil }
        return value
      },
      print: { JSON(.unsigned(UInt64(clamping: $0))) },
      setting: { text in
        UInt64(text ?? "").map { JSON(.unsigned($0)) } ?? JSON(.string(text ?? ""))
      })
  }
}

extension SpecType where Value == UInt64 {
  /// An amount of memory.
  static let size = SpecType(
    words: "bytes, or a size such as 512M",
    read: { (json) throws(SpecError) in
      switch json.value {
      case .unsigned(let bytes): bytes
      case .string(let text): ByteCount.parse(text)
      default: nil
      }
    },
    print: { JSON(.string(ByteCount.text($0))) })

  /// The same, for RAM: nobody means a few bytes.
  static let memorySize = SpecType(
    words: "a size such as 512M, or bytes from 1 MiB on",
    read: { (json) throws(SpecError) in
      guard let bytes = try size.read(json) else { return nil }
      var isBare = true
      if case .string(let text) = json.value { isBare = UInt64(text) != nil }
      if isBare, let problem = ByteCount.tooFew(bytes) {
        throw SpecError(problem, at: json.position)
      }
      return bytes
    },
    print: size.print)
}

extension ByteCount {
  /// Why `bytes`, written without a unit, can't be meant for a machine's memory; nil if it can.
  fileprivate static func tooFew(_ bytes: UInt64) -> String? {
    guard bytes < 1 << 20 else { return nil }
    let meant = bytes == 0 ? "512M" : "\(bytes)M"
    return "\(bytes) bytes is impossible: did you mean \(meant)?"
  }
}

extension SpecType {
  /// A text that `parse` understands, and `text` writes.
  static func spelled(
    _ words: String, _ parse: @escaping @Sendable (String) -> Value?,
    _ text: @escaping @Sendable (Value) -> String
  ) -> SpecType {
    SpecType(
      words: words,
      read: { (json) throws(SpecError) in
        guard case .string(let text) = json.value else { return nil }
        return parse(text)
      },
      print: { JSON(.string(text($0))) })
  }
}

extension SpecType where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
  /// One of a few words.
  static var word: SpecType {
    let names = Value.allCases.map(\.rawValue)
    let words = names.dropLast().joined(separator: ", ") + " or " + (names.last ?? "")
    return SpecType(
      words: words,
      read: { (json) throws(SpecError) in
        guard case .string(let text) = json.value else { return nil }
        if let value = Value(rawValue: text) { return value }
        guard let near = Spelling.nearest(to: text, among: names) else { return nil }
        throw SpecError(
          "\(words) is possible here, not \(JSON.shown(text)): did you mean '\(near)'?",
          at: json.position)
      },
      print: { JSON(.string($0.rawValue)) })
  }
}

extension SpecType {
  /// A list of up to `most` such values.
  static func list<Item>(
    of item: SpecType<Item>, most: Int, _ words: String
  ) -> SpecType<[Item]> where Value == [Item] {
    SpecType(
      words: words,
      read: { (json) throws(SpecError) in
        guard case .array(let list) = json.value else { return nil }
        guard list.count <= most else {
          throw SpecError("there are more than \(most) of them", at: json.position)
        }
        var items: [Item] = []
        for json in list {
          guard let value = try item.read(json) else {
            throw SpecError("\(item.words) is possible here, not \(json.kind)", at: json.position)
          }
          items.append(value)
        }
        return items
      },
      print: { JSON(.array($0.map(item.print))) })
  }

  /// An object with the keys of `table`, on top of what `start` says.
  static func object(_ table: SpecTable<Value>, from start: Value) -> SpecType {
    SpecType(
      words: "an object",
      read: { (json) throws(SpecError) in
        var value = start
        try table.read(json, into: &value)
        return value
      },
      print: { JSON(.object(table.print($0))) })
  }
}
