/// A question whose answer came from running the experiment.
package struct Question: Sendable {
  /// What is right.
  package enum Answer: Sendable, Equatable {
    /// One of these words, the first being the usual one.
    case words([String])
    /// A whole number.
    case number(Int)
    /// These words in any order.
    case set([String])
    /// Yes or no.
    case flag(Bool)

    /// Words that mean one thing.
    static func word(_ text: String) -> Answer { .words([text]) }
  }

  /// What a sheet of answers calls it.
  package let id: String
  /// The question.
  package let text: String
  /// What this run says.
  package let answer: Answer
  /// What a right answer is worth.
  package let points: Int
  /// Where in the report the answer can be found, such as a table's caption.
  package let place: String

  /// The form that an answer takes, as a hint.
  package var form: String {
    switch answer {
    case .words: "a word"
    case .number: "a number"
    case .set: "names with commas between them, or: none"
    case .flag: "yes or no"
    }
  }

  /// The right answer as a sheet has it.
  package var expected: String {
    switch answer {
    case .words(let words): words.first ?? ""
    case .number(let number): "\(number)"
    case .set(let names): names.isEmpty ? "none" : names.joined(separator: ", ")
    case .flag(let flag): flag ? "yes" : "no"
    }
  }

  /// Whether `text` is right. Case, spaces at the ends and repeated spaces don't count.
  package func accepts(_ text: String) -> Bool {
    let given = Self.plain(text)
    switch answer {
    case .words(let words): return words.contains { Self.word($0) == Self.word(given) }
    case .number(let number): return Self.number(given) == number
    case .flag(let flag):
      return (flag ? ["yes", "y", "true"] : ["no", "n", "false"]).contains(given)
    case .set(let names):
      let items = given.split(separator: ",").map { Self.plain(String($0)) }.filter { !$0.isEmpty }
      let told = Set(items == ["none"] ? [] : items)
      return !items.isEmpty && told == Set(names.map(Self.plain))
    }
  }

  /// Words as the report prints them: `#GP(0)` is #GP, and GP.
  private static func word(_ text: String) -> String {
    var word = plain(text)
    if word.hasPrefix("#") { word.removeFirst() }
    if word.hasSuffix(")"), let bracket = word.firstIndex(of: "(") {
      word = plain(String(word[..<bracket]))
    }
    return word
  }

  private static func plain(_ text: String) -> String {
    text.lowercased().split(whereSeparator: \.isWhitespace).joined(separator: " ")
  }

  /// Decimal, with spaces between groups and zeroes behind a point as tables have them, or, after 0x,
  /// hexadecimal.
  private static func number(_ text: String) -> Int? {
    guard !text.hasPrefix("0x") else { return Int(text.dropFirst(2), radix: 16) }
    let digits = text.filter { $0 != " " }
    let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2 else { return Int(digits) }
    return !parts[1].isEmpty && parts[1].allSatisfy { $0 == "0" } ? Int(parts[0]) : nil
  }
}
