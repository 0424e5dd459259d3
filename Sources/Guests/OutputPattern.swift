/// What a guest is expected to print: a text, in which digits may differ from run to run.
public struct OutputPattern: Sendable, CustomStringConvertible {
  /// A part of the output.
  public enum Piece: Sendable {
    /// These bytes exactly.
    case text(String)
    /// That many decimal digits, whichever they are.
    case digits(Int)
  }

  /// The parts, in order.
  public let pieces: [Piece]

  init(_ pieces: [Piece]) {
    self.pieces = pieces
  }

  /// Whether `output` is what was expected, from its first byte to its last.
  public func matches(_ output: some Sequence<UInt8>) -> Bool {
    var bytes = output.makeIterator()
    for piece in pieces {
      switch piece {
      case .text(let text):
        for expected in text.utf8 {
          guard bytes.next() == expected else { return false }
        }
      case .digits(let count):
        for _ in 0..<count {
          guard let byte = bytes.next(), (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
          else { return false }
        }
      }
    }
    return bytes.next() == nil
  }

  /// The text, with `\d` where any digit may stand.
  public var description: String {
    pieces.map {
      switch $0 {
      case .text(let text): text
      case .digits(let count): String(repeating: "\\d", count: count)
      }
    }.joined()
  }
}
