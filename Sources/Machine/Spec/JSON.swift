/// A JSON value (RFC 8259), with the place in the text that it was read from.
package struct JSON: Sendable {
  /// What it is.
  package var value: Value
  /// Where its first character is; nil for a value that wasn't read.
  package var position: Position?

  /// A value, and where it stands.
  package init(_ value: Value, at position: Position? = nil) {
    self.value = value
    self.position = position
  }

  /// The kinds of values.
  package indirect enum Value: Equatable, Sendable {
    case null
    case bool(Bool)
    /// A whole number that isn't negative.
    case unsigned(UInt64)
    /// A whole number below zero.
    case negative(Int64)
    /// Any other number.
    case real(Double)
    case string(String)
    case array([JSON])
    /// Its members, in the order of the text; no two have the same name.
    case object([Member])
  }

  /// A member of an object.
  package struct Member: Equatable, Sendable {
    /// Its name.
    package var name: String
    /// Where the name is.
    package var position: Position?
    /// Its value.
    package var value: JSON

    /// A member, and where it stands.
    package init(_ name: String, _ value: JSON, at position: Position? = nil) {
      self.name = name
      self.value = value
      self.position = position
    }

    /// Whether name and value are the same, wherever they stand.
    package static func == (a: Self, b: Self) -> Bool { a.name == b.name && a.value == b.value }
  }

  /// A place in a text, both counted from 1; columns are Unicode scalars.
  package struct Position: Hashable, Sendable, CustomStringConvertible {
    /// The line.
    package var line: Int
    /// The column.
    package var column: Int

    /// A place.
    package init(line: Int, column: Int) {
      self.line = line
      self.column = column
    }

    /// As compilers write it: `3:14`.
    package var description: String { "\(line):\(column)" }
  }
}

extension JSON: Equatable {
  /// Whether the values are the same, wherever they stand.
  package static func == (a: JSON, b: JSON) -> Bool { a.value == b.value }
}

extension JSON {
  /// What it is, for messages.
  package var kind: String {
    switch value {
    case .null: "null"
    case .bool: "true or false"
    case .unsigned, .negative, .real: "a number"
    case .string: "a text"
    case .array: "a list"
    case .object: "an object"
    }
  }

  /// The members, if this is an object.
  package var members: [Member]? {
    if case .object(let members) = value { members } else { nil }
  }

  /// The member called `name`, if this is an object that has it.
  package subscript(name: String) -> JSON? { members?.first { $0.name == name }?.value }
}

// MARK: Printing

extension JSON {
  /// The value as text with an indent of two spaces and a line feed at its end, the same each time.
  package var text: String {
    var text = ""
    print(to: &text, indent: "")
    return text + "\n"
  }

  private func print(to text: inout String, indent: String) {
    switch value {
    case .null: text += "null"
    case .bool(let bool): text += bool ? "true" : "false"
    case .unsigned(let number): text += String(number)
    case .negative(let number): text += String(number)
    // JSON has no word for what is no number.
    case .real(let number): text += number.isFinite ? "\(number)" : "null"
    case .string(let string): text += Self.quoted(string)
    case .array(let items):
      Self.printList(items, "[", "]", &text, indent) { $0.print(to: &$1, indent: $2) }
    case .object(let members):
      Self.printList(members, "{", "}", &text, indent) {
        $1 += Self.quoted($0.name) + ": "
        $0.value.print(to: &$1, indent: $2)
      }
    }
  }

  private static func printList<Item>(
    _ items: [Item], _ open: String, _ close: String, _ text: inout String, _ indent: String,
    _ print: (Item, inout String, String) -> Void
  ) {
    guard !items.isEmpty else {
      text += open + close
      return
    }
    let inner = indent + "  "
    text += open + "\n"
    for (index, item) in items.enumerated() {
      text += inner
      print(item, &text, inner)
      text += index + 1 < items.count ? ",\n" : "\n"
    }
    text += indent + close
  }

  /// `text`, which may be anybody's, as a message can have it: not longer than a line, and with nothing
  /// that a terminal obeys.
  package static func shown(_ text: String) -> String {
    let start = text.unicodeScalars.prefix(60)
    let end = start.endIndex == text.unicodeScalars.endIndex ? "'" : "...'"
    return "'" + quoted(String(start)).dropFirst().dropLast() + end
  }

  /// `text` as a JSON string.
  package static func quoted(_ text: String) -> String {
    var json = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": json += "\\\""
      case "\\": json += "\\\\"
      case "\n": json += "\\n"
      // A terminal would obey these.
      case _ where scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value):
        let digits = String(scalar.value, radix: 16)
        json += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: json.unicodeScalars.append(scalar)
      }
    }
    return json + "\""
  }
}
