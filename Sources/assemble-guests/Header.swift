/// What a guest's source says about itself in the comment that it begins with.
///
/// guest-asm/README.md describes the lines.
struct Header {
  var name: String
  var summary: String
  var mode: Mode
  var format: Format
  var cpus: Int
  var options: [String]
  /// Bytes of the IDE disk that it wants, if it wants one.
  var disk: Int?
  var input: String
  var expect: [Piece]
  var status: Int
  var operations: Int?
  /// The lab's experiment that it belongs to; such a guest prints nothing and ends as the lab says.
  var experiment: String?

  /// The last two are other processors, for guests of the lab that no KVM runs.
  enum Mode: String, CaseIterable {
    case real, protected, long, riscv64, armv7

    var isX86: Bool { self != .riscv64 && self != .armv7 }
  }

  enum Format: String, CaseIterable {
    case flat, elf32, elf64
    case bootSector = "boot-sector"
  }

  /// A part of the expected output: text as it is, or that many decimal digits of any value.
  enum Piece {
    case text(String)
    case digits(Int)
  }

  /// A complaint in the form that compilers use: what is wrong, and on which line.
  struct Malformed: Error {
    var line: Int
    var message: String
  }

  /// Reads the header of the guest called `name` from its source's text.
  init(name: String, source: String) throws(Malformed) {
    let known = [
      "mode", "format", "cpus", "options", "disk", "input", "expect", "status", "operations", "lab",
    ]
    var summary: String?
    var values: [String: (text: String, line: Int)] = [:]
    var number = 0
    for line in source.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      guard line.hasPrefix("//") else { break }
      let text = line.dropFirst(2).drop { $0 == " " }
      if summary == nil { summary = String(text) }
      guard let colon = text.firstIndex(of: ":"), known.contains(String(text[..<colon])) else {
        continue
      }
      let key = String(text[..<colon])
      guard values[key] == nil else {
        throw Malformed(line: number, message: "a second '\(key):'")
      }
      let value = text[text.index(after: colon)...].drop { $0 == " " }
      values[key] = (String(value), number)
    }
    guard let summary, !summary.isEmpty else {
      throw Malformed(line: 1, message: "a guest begins with a comment: // what it shows")
    }

    func required(_ key: String) throws(Malformed) -> (text: String, line: Int) {
      guard let value = values[key] else {
        throw Malformed(line: 1, message: "no line '// \(key): ...' in the comment at the top")
      }
      return value
    }
    func decimal(_ key: String, _ value: (text: String, line: Int)) throws(Malformed) -> Int {
      guard let result = Int(value.text), result >= 0 else {
        throw Malformed(line: value.line, message: "'\(key):' wants a number, not '\(value.text)'")
      }
      return result
    }
    func choice<T: RawRepresentable<String> & CaseIterable>(
      _ key: String
    ) throws(Malformed) -> T {
      let value = try required(key)
      guard let result = T(rawValue: value.text) else {
        let names = T.allCases.map(\.rawValue).joined(separator: ", ")
        throw Malformed(line: value.line, message: "'\(key):' wants one of \(names)")
      }
      return result
    }

    self.name = name
    self.summary = summary
    mode = try choice("mode")
    format = try choice("format")
    let fits =
      switch format {
      case .flat: true
      case .bootSector: mode == .real
      case .elf32: mode == .protected
      case .elf64: mode == .long
      }
    guard fits else {
      throw Malformed(
        line: try required("mode").line,
        message: "format \(format.rawValue) is never entered in mode \(mode.rawValue)")
    }
    cpus = 1
    if let value = values["cpus"] { cpus = try decimal("cpus", value) }
    options = values["options"]?.text.split(separator: " ").map(String.init) ?? []
    disk = nil
    if let value = values["disk"] {
      guard value.text.hasSuffix("K"), let count = Int(value.text.dropLast()), count > 0 else {
        throw Malformed(line: value.line, message: "'disk:' wants a size in K, not '\(value.text)'")
      }
      disk = count << 10
    }
    input = ""
    if let value = values["input"] {
      for piece in try Self.unquote(value) {
        guard case .text(let text) = piece else {
          throw Malformed(line: value.line, message: "\\d has no meaning in the input")
        }
        input += text
      }
    }
    experiment = values["lab"]?.text
    let isOfLab = experiment != nil
    guard isOfLab || mode.isX86 else {
      throw Malformed(
        line: try required("mode").line, message: "only guests of the lab are for other processors")
    }
    expect = isOfLab ? [] : try Self.unquote(try required("expect"))
    status = isOfLab ? 0 : try decimal("status", try required("status"))
    operations = nil
    if let value = values["operations"] { operations = try decimal("operations", value) }
  }

  /// The pieces of a text in double quotes with the escapes \n, \r, \t, \", \\, \xHH and \d.
  private static func unquote(_ value: (text: String, line: Int)) throws(Malformed) -> [Piece] {
    func malformed(_ message: String) -> Malformed { Malformed(line: value.line, message: message) }

    guard value.text.count >= 2, value.text.first == "\"", value.text.last == "\"" else {
      throw malformed("wants a text in double quotes, not \(value.text)")
    }
    var pieces: [Piece] = []
    var text = ""
    var rest = value.text.dropFirst().dropLast()
    while let character = rest.popFirst() {
      guard character.isASCII else { throw malformed("a character outside ASCII: write \\xHH") }
      guard character == "\\" else {
        text.append(character)
        continue
      }
      switch rest.popFirst() {
      case "n": text += "\n"
      case "r": text += "\r"
      case "t": text += "\t"
      case "\"": text += "\""
      case "\\": text += "\\"
      case "x":
        guard rest.count >= 2, let byte = UInt8(rest.prefix(2), radix: 16), byte < 0x80 else {
          throw malformed("\\x wants two hexadecimal digits up to 7F")
        }
        rest = rest.dropFirst(2)
        text.unicodeScalars.append(Unicode.Scalar(byte))
      case "d":
        if !text.isEmpty { pieces.append(.text(text)) }
        text = ""
        if case .digits(let count) = pieces.last {
          pieces[pieces.count - 1] = .digits(count + 1)
        } else {
          pieces.append(.digits(1))
        }
      default: throw malformed("an unknown escape: there are \\n \\r \\t \\\" \\\\ \\xHH \\d")
      }
    }
    if !text.isEmpty { pieces.append(.text(text)) }
    return pieces
  }
}
