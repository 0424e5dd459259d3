extension JSON {
  /// Why a text is no JSON, or more than is read.
  package struct Malformed: Error, Equatable, Sendable {
    /// Where.
    package var position: Position
    /// What is wrong there.
    package var message: String
  }

  /// How much is read of a text that somebody else wrote.
  package struct Limits: Sendable {
    /// Bytes of the text.
    package var bytes = 1 << 20
    /// How deep lists and objects are in one another.
    package var depth = 32
    /// Bytes of a string.
    package var string = 64 << 10
    /// Values, all in all.
    package var values = 20_000

    /// Limits that no spec comes near.
    package init() {}
  }

  /// The value that `text` spells, and nothing else: strictly as RFC 8259 has it, without two members
  /// of one name in an object.
  package init(parsing text: [UInt8], _ limits: Limits = Limits()) throws(Malformed) {
    var parser = JSONParser(text, limits)
    self = try parser.parse()
  }
}

/// Reads a text once, from its first byte to its last.
private struct JSONParser {
  private let bytes: [UInt8]
  private let limits: JSON.Limits
  private var index = 0
  private var line = 1
  private var lineStart = 0
  /// Bytes of this line that start no character.
  private var inner = 0
  private var count = 0

  init(_ bytes: [UInt8], _ limits: JSON.Limits) {
    self.bytes = bytes
    self.limits = limits
  }

  mutating func parse() throws(JSON.Malformed) -> JSON {
    guard bytes.count <= limits.bytes else {
      throw error("the text has more than \(limits.bytes) bytes")
    }
    skipSpace()
    let value = try value(depth: 0)
    skipSpace()
    guard next == nil else { throw error("something is behind the end") }
    return value
  }

  // MARK: Characters

  private var next: UInt8? { index < bytes.count ? bytes[index] : nil }

  private var position: JSON.Position {
    JSON.Position(line: line, column: index - lineStart - inner + 1)
  }

  private func error(_ message: String, at position: JSON.Position? = nil) -> JSON.Malformed {
    JSON.Malformed(position: position ?? self.position, message: message)
  }

  private mutating func skip(_ byte: Character) -> Bool {
    guard next == byte.asciiValue else { return false }
    index += 1
    return true
  }

  private mutating func skipSpace() {
    while let byte = next {
      switch byte {
      case 0x20, 0x09, 0x0D: index += 1
      case 0x0A:
        index += 1
        line += 1
        (lineStart, inner) = (index, 0)
      default: return
      }
    }
  }

  // MARK: Values

  private mutating func value(depth: Int) throws(JSON.Malformed) -> JSON {
    count += 1
    guard count <= limits.values else { throw error("there are more than \(limits.values) values") }
    let start = position
    guard let first = next else { throw error("a value is missing at the end") }
    switch first {
    case UInt8(ascii: "{"): return JSON(.object(try object(depth: depth)), at: start)
    case UInt8(ascii: "["): return JSON(.array(try array(depth: depth)), at: start)
    case UInt8(ascii: "\""): return JSON(.string(try string()), at: start)
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"):
      return JSON(try number(), at: start)
    default: return JSON(try word(), at: start)
    }
  }

  private mutating func word() throws(JSON.Malformed) -> JSON.Value {
    let words: [(String, JSON.Value)] = [
      ("true", .bool(true)), ("false", .bool(false)), ("null", .null),
    ]
    for (word, value) in words where bytes[index...].starts(with: word.utf8) {
      index += word.utf8.count
      return value
    }
    throw error("this is no value: texts stand in double quotes")
  }

  private mutating func array(depth: Int) throws(JSON.Malformed) -> [JSON] {
    try open(depth: depth)
    var items: [JSON] = []
    if skip("]") { return items }
    while true {
      items.append(try value(depth: depth + 1))
      skipSpace()
      if skip("]") { return items }
      guard skip(",") else { throw error("a ',' or ']' is missing") }
      skipSpace()
    }
  }

  private mutating func object(depth: Int) throws(JSON.Malformed) -> [JSON.Member] {
    try open(depth: depth)
    var members: [JSON.Member] = []
    var places: [String: JSON.Position] = [:]
    if skip("}") { return members }
    while true {
      let place = position
      guard next == UInt8(ascii: "\"") else { throw error("a name in double quotes is missing") }
      let name = try string()
      if let first = places.updateValue(place, forKey: name) {
        throw error("\(JSON.shown(name)) is here twice; the first is at \(first)", at: place)
      }
      skipSpace()
      guard skip(":") else { throw error("a ':' is missing") }
      skipSpace()
      members.append(JSON.Member(name, try value(depth: depth + 1), at: place))
      skipSpace()
      if skip("}") { return members }
      guard skip(",") else { throw error("a ',' or '}' is missing") }
      skipSpace()
    }
  }

  private mutating func open(depth: Int) throws(JSON.Malformed) {
    guard depth < limits.depth else {
      throw error("lists and objects are more than \(limits.depth) deep")
    }
    index += 1
    skipSpace()
  }

  // MARK: Numbers

  private mutating func number() throws(JSON.Malformed) -> JSON.Value {
    let (start, place) = (index, position)
    let isNegative = skip("-")
    let first = next
    try digits()
    guard first != UInt8(ascii: "0") || index == start + (isNegative ? 2 : 1) else {
      throw error("a number doesn't start with 0", at: place)
    }
    let whole = String(decoding: bytes[start..<index], as: UTF8.self)
    var isWhole = true
    if skip(".") {
      isWhole = false
      try digits()
    }
    if skip("e") || skip("E") {
      isWhole = false
      if !skip("+") { _ = skip("-") }
      try digits()
    }
    if isWhole {
      if let number = UInt64(whole) { return .unsigned(number) }
      if let number = Int64(whole) { return number == 0 ? .unsigned(0) : .negative(number) }
    } else if let number = Double(String(decoding: bytes[start..<index], as: UTF8.self)),
      number.isFinite
    {
      return .real(number)
    }
    throw error("the number is too large", at: place)
  }

  /// At least one digit, and no more than a number that makes sense has.
  private mutating func digits() throws(JSON.Malformed) {
    let start = index
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { index += 1 }
    guard index > start else { throw error("a digit is missing") }
    guard index - start <= 400 else { throw error("the number is too long") }
  }

  // MARK: Strings

  private mutating func string() throws(JSON.Malformed) -> String {
    let place = position
    index += 1
    var text: [UInt8] = []
    while true {
      guard let byte = next else { throw error("the text that starts here has no end", at: place) }
      guard byte >= 0x20 else {
        throw error("a control character in a text: write it as \\n or \\u00XX")
      }
      index += 1
      if byte == UInt8(ascii: "\"") { break }
      if byte == UInt8(ascii: "\\") {
        text += String(try escape()).utf8
      } else {
        if byte & 0xC0 == 0x80 { inner += 1 }
        text.append(byte)
      }
      guard text.count <= limits.string else {
        throw error("the text has more than \(limits.string) bytes", at: place)
      }
    }
    guard let string = String(validating: text, as: UTF8.self) else {
      throw error("the text is not UTF-8", at: place)
    }
    return string
  }

  /// What stands behind a backslash.
  private mutating func escape() throws(JSON.Malformed) -> Unicode.Scalar {
    let simple: [UInt8: Unicode.Scalar] = [
      UInt8(ascii: "\""): "\"", UInt8(ascii: "\\"): "\\", UInt8(ascii: "/"): "/",
      UInt8(ascii: "b"): "\u{8}", UInt8(ascii: "f"): "\u{C}", UInt8(ascii: "n"): "\n",
      UInt8(ascii: "r"): "\r", UInt8(ascii: "t"): "\t",
    ]
    if let byte = next, let scalar = simple[byte] {
      index += 1
      return scalar
    }
    guard skip("u") else { throw error("there is no such escape") }
    let unit = try hexadecimal()
    if let scalar = Unicode.Scalar(unit) { return scalar }
    // Beyond U+FFFF a character is two units (RFC 8259, 7).
    guard unit < 0xDC00, skip("\\"), skip("u") else { throw error("half a character") }
    let second = try hexadecimal()
    guard (0xDC00...0xDFFF).contains(second),
      let scalar = Unicode.Scalar(0x10000 + (UInt32(unit) - 0xD800) << 10 + UInt32(second) - 0xDC00)
    else { throw error("half a character") }
    return scalar
  }

  private mutating func hexadecimal() throws(JSON.Malformed) -> UInt16 {
    var unit: UInt16 = 0
    for _ in 0..<4 {
      guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw error("four hexadecimal digits are missing")
      }
      unit = unit << 4 | UInt16(digit)
      index += 1
    }
    return unit
  }
}
