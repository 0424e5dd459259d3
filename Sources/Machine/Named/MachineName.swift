/// The name of a machine that others can find: 1 to 40 letters, digits, dots, dashes and underscores,
/// the first a letter or a digit.
package struct MachineName: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The longest, in characters: a socket's path has little room.
  package static let longest = 40

  /// The name itself.
  package let description: String

  /// The name `text`; nil where that can't be one.
  package init?(_ text: String) {
    guard (1...Self.longest).contains(text.utf8.count), let first = text.utf8.first,
      Self.isLetterOrDigit(first),
      text.utf8.allSatisfy({ Self.isLetterOrDigit($0) || ".-_".utf8.contains($0) })
    else { return nil }
    description = text
  }

  /// A name for a machine that runs `image`: the last part of its path, without what no name can have.
  package init(for image: String) {
    let last = image.split(whereSeparator: { "/:".contains($0) }).last ?? ""
    let fitting = last.utf8.filter { Self.isLetterOrDigit($0) || ".-_".utf8.contains($0) }
      .drop { !Self.isLetterOrDigit($0) }.prefix(Self.longest - 4)
    description = fitting.isEmpty ? "machine" : String(decoding: fitting, as: UTF8.self)
  }

  /// The same with a number behind it, for when the name is taken.
  package func numbered(_ number: Int) -> MachineName? { MachineName("\(description)-\(number)") }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: false
    }
  }

  /// By the alphabet.
  package static func < (a: Self, b: Self) -> Bool { a.description < b.description }
}
