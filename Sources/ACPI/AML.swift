/// A piece of ACPI Machine Language: the bytes of one or more terms (ACPI 6.5, chapter 20).
struct AML: Sendable {
  private(set) var bytes: [UInt8]

  private init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Table 20.6, AML Byte Stream Byte Values.
  private enum Op {
    static let zero: UInt8 = 0x00
    static let one: UInt8 = 0x01
    static let name: UInt8 = 0x08
    static let bytePrefix: UInt8 = 0x0A
    static let wordPrefix: UInt8 = 0x0B
    static let dwordPrefix: UInt8 = 0x0C
    static let stringPrefix: UInt8 = 0x0D
    static let qwordPrefix: UInt8 = 0x0E
    static let scope: UInt8 = 0x10
    static let buffer: UInt8 = 0x11
    static let package: UInt8 = 0x12
    static let method: UInt8 = 0x14
    static let twoNames: UInt8 = 0x2E
    static let extended: UInt8 = 0x5B
    static let device: UInt8 = 0x82
    static let notify: UInt8 = 0x86
  }
}

// MARK: - Named objects

extension AML {
  /// `Scope (path) { terms }`
  static func scope(_ path: String, _ terms: [AML]) -> AML {
    AML([Op.scope] + withLength(name(path) + joined(terms)))
  }

  /// `Device (name) { terms }`
  static func device(_ path: String, _ terms: [AML]) -> AML { device(name(path), terms) }

  /// `Device () { terms }` with the number `index`, in so many hexadecimal digits, behind the letters
  /// of its name.
  static func device(_ prefix: String, _ index: Int, digits: Int, _ terms: [AML]) -> AML {
    device(numbered(prefix, index, digits), terms)
  }

  /// `Method () { terms }`, named likewise, which takes nothing and may run beside others.
  static func method(_ prefix: String, _ index: Int, digits: Int, _ terms: [AML]) -> AML {
    AML([Op.method] + withLength(numbered(prefix, index, digits) + [0] + joined(terms)))
  }

  // Digits are put together here, for the standard library's way to a string costs more than all tables,
  // the first time.
  private static func numbered(_ prefix: String, _ index: Int, _ digits: Int) -> [UInt8] {
    var name = Array(prefix.utf8)
    for digit in (0..<digits).reversed() {
      let value = UInt8(truncatingIfNeeded: index >> (4 * digit)) & 0xF
      name.append(value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "A") + value - 10)
    }
    return segment(name)
  }

  private static func device(_ name: [UInt8], _ terms: [AML]) -> AML {
    AML([Op.extended, Op.device] + withLength(name + joined(terms)))
  }

  /// `Name (name, value)`
  static func name(_ path: String, _ value: AML) -> AML {
    AML([Op.name] + name(path) + value.bytes)
  }

  /// `Notify (path, value)`
  static func notify(_ path: String, _ value: AML) -> AML {
    AML([Op.notify] + name(path) + value.bytes)
  }

  /// The terms one after the other.
  static func joined(_ terms: [AML]) -> [UInt8] { terms.flatMap(\.bytes) }

  /// A name of one segment, or two with a dot between them; `\` before them or not (20.2.2).
  private static func name(_ path: String) -> [UInt8] {
    let bytes = Array(path.utf8)
    if bytes.first == UInt8(ascii: "\\") { return [bytes[0]] + segments(bytes[1...]) }
    return segments(bytes[...])
  }

  private static func segments(_ names: ArraySlice<UInt8>) -> [UInt8] {
    guard let dot = names.firstIndex(of: UInt8(ascii: ".")) else { return segment(Array(names)) }
    return [Op.twoNames] + segment(Array(names[..<dot])) + segment(Array(names[(dot + 1)...]))
  }

  /// One to four characters, filled up with `_`.
  private static func segment(_ name: [UInt8]) -> [UInt8] {
    precondition((1...4).contains(name.count), "a name has 1 to 4 characters")
    return name + [UInt8](repeating: UInt8(ascii: "_"), count: 4 - name.count)
  }
}

// MARK: - Data

extension AML {
  /// An integer, in the shortest form (20.2.3).
  static func integer(_ value: UInt64) -> AML {
    var bytes: [UInt8] = []
    switch value {
    case 0: return AML([Op.zero])
    case 1: return AML([Op.one])
    case ...0xFF: bytes = [Op.bytePrefix, UInt8(value)]
    case ...0xFFFF:
      bytes = [Op.wordPrefix]
      bytes.append(littleEndian: UInt16(value))
    case ...0xFFFF_FFFF:
      bytes = [Op.dwordPrefix]
      bytes.append(littleEndian: UInt32(value))
    default:
      bytes = [Op.qwordPrefix]
      bytes.append(littleEndian: value)
    }
    return AML(bytes)
  }

  /// A string of ASCII characters.
  static func string(_ text: String) -> AML {
    AML([Op.stringPrefix] + text.utf8 + [0])
  }

  /// `Buffer () { bytes }`
  static func buffer(_ bytes: [UInt8]) -> AML {
    AML([Op.buffer] + withLength(integer(UInt64(bytes.count)).bytes + bytes))
  }

  /// `Package () { elements }`, of up to 255.
  static func package(_ elements: [AML]) -> AML {
    precondition(elements.count <= 255)
    return AML([Op.package] + withLength([UInt8(elements.count)] + joined(elements)))
  }

  /// `EISAID (text)`: three letters of 5 bits each and four hexadecimal digits, most significant
  /// byte first (19.6.37).
  static func eisaID(_ text: String) -> AML {
    let characters = Array(text.utf8)
    precondition(characters.count == 7, "\(text) isn't an EISA ID")
    var id: UInt32 = 0
    for letter in characters[..<3] { id = id << 5 | UInt32(letter & 0x1F) }
    for digit in characters[3...] {
      id = id << 4 | UInt32(digit <= UInt8(ascii: "9") ? digit & 0xF : (digit & 0xF) + 9)
    }
    return integer(UInt64(id.byteSwapped))
  }

  /// Puts PkgLength before `contents` (20.2.4): it counts itself; up to 63 in one byte, or 4 bits in
  /// the first of two to four bytes and 8 in each of the others.
  private static func withLength(_ contents: [UInt8]) -> [UInt8] {
    if contents.count + 1 < 1 << 6 { return [UInt8(contents.count + 1)] + contents }
    for more in 1...3 {
      let length = contents.count + 1 + more
      guard length < 1 << (4 + 8 * more) else { continue }
      var bytes = [UInt8(more << 6 | length & 0xF)]
      for index in 0..<more {
        bytes.append(UInt8(truncatingIfNeeded: length >> (4 + 8 * index)))
      }
      return bytes + contents
    }
    preconditionFailure("a package of \(contents.count) bytes")
  }
}
