/// A message in whose words settings and tools have names of the reader's: an option for who typed a
/// command, a property of `VMConfiguration` for who wrote a program.
///
/// Made by an interpolation: `"give it \(.memory, "1M") or more"`.
package struct Advice: Equatable, Sendable {
  /// What has another name for each reader; the raw value is `VMConfiguration`'s, or plain words.
  package enum Term: String, Sendable {
    // What a configuration says.
    case memory = "memorySize"
    case mode, loadAddress, initrds, append, firmware, disk
    case readOnly = "isReadOnly"
    // What a disk image is made from.
    case size, format
    case replacing = "being told"
    case backing = "base"
    case backingFormat = "base format"
    // What is done with one.
    case repair = "a repair"
    case overlay = "a new image with a base"
    case rebase = "a rebase"
  }

  /// A piece of the text.
  fileprivate enum Part: Equatable, Sendable {
    case text(String)
    case term(Term, String?)
  }

  private var parts: [Part]

  /// The text of whoever calls `term` and its value, if it has one, by `name`.
  package func text(_ name: (_ term: Term, _ value: String?) -> String) -> String {
    parts.reduce(into: "") { text, part in
      switch part {
      case .text(let words): text += words
      case .term(let term, let value): text += name(term, value)
      }
    }
  }

  /// One text after the other.
  package static func + (first: Advice, second: Advice) -> Advice {
    var both = first
    both.parts += second.parts
    return both
  }
}

extension Advice: CustomStringConvertible {
  /// In the words of a program that uses the library.
  package var description: String {
    text { term, value in value.map { "\(term.rawValue) \($0)" } ?? term.rawValue }
  }
}

extension Advice: ExpressibleByStringInterpolation {
  package init(stringLiteral text: String) { parts = [.text(text)] }
  package init(stringInterpolation: Interpolation) { parts = stringInterpolation.parts }

  /// What a literal with `\(...)` in it is made of.
  package struct Interpolation: StringInterpolationProtocol {
    fileprivate var parts: [Part] = []

    package init(literalCapacity: Int, interpolationCount: Int) {}
    package mutating func appendLiteral(_ text: String) { parts.append(.text(text)) }
    /// A term, and what it is set to.
    package mutating func appendInterpolation(_ term: Term, _ value: String? = nil) {
      parts.append(.term(term, value))
    }
    /// Another message.
    package mutating func appendInterpolation(_ advice: Advice) { parts += advice.parts }
    /// Whatever else has words.
    package mutating func appendInterpolation(_ value: some CustomStringConvertible) {
      parts.append(.text(value.description))
    }
  }
}
