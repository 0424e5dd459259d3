/// A student's answers: one `question: answer` a line. Empty lines, and what follows a `#` at the
/// start of a line, don't count.
package struct AnswerSheet: Sendable {
  /// A line that is no answer.
  package struct Malformed: Error, CustomStringConvertible {
    /// The line's number, from 1.
    package let line: Int
    /// What is wrong with it.
    package let description: String
  }

  /// The answers by the questions' names; an empty answer is none.
  package let answers: [String: String]
  /// Whose it is: the answer to `student`; nil for none.
  package private(set) var student: String?
  /// Whose numbers it is about: the answer to `seed`; nil for the usual run.
  package private(set) var seed: String?

  /// Reads a sheet. Marks that don't show, such as the one that some editors put at the start of a
  /// file, don't count, and no character of it can do anything to a terminal.
  ///
  /// A sheet that doesn't say whose it is is `owner`'s.
  package init(_ text: String, owner: String? = nil) throws(Malformed) {
    var answers: [String: String] = [:]
    var number = 0
    for line in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
      number += 1
      let line = Markup.printable(line).drop(while: \.isWhitespace)
      guard !line.isEmpty, line.first != "#" else { continue }
      guard let colon = line.firstIndex(of: ":") else {
        throw Malformed(line: number, description: "line \(number): wanted 'question: answer'")
      }
      let id = String(line[..<colon].filter { !$0.isWhitespace })
      let answer = line[line.index(after: colon)...].drop(while: \.isWhitespace)
      guard answers[id] == nil else {
        throw Malformed(line: number, description: "line \(number): a second answer to '\(id)'")
      }
      answers[id] = String(answer)
    }
    let student = answers.removeValue(forKey: "student")
    seed = answers.removeValue(forKey: "seed").flatMap { $0.isEmpty ? nil : $0 }
    self.answers = answers
    self.student = student.flatMap { $0.isEmpty ? nil : $0 } ?? owner
  }

  /// A sheet to fill in, for the questions of `report`.
  package static func blank(for report: Report) -> String {
    var lines = ["# kvmlite lab \(report.name): \(report.title)"]
    lines.append("# Fill in, then: kvmlite lab \(report.name) --check THIS-FILE")
    let student = report.variation.student
    lines += ["", "student:" + (student.map { " " + $0 } ?? "")]
    if let student { lines += ["# The numbers are your own; this says so:", "seed: " + student] }
    for question in report.allQuestions {
      lines += ["", "# \(question.text)", "# (\(question.form))", "\(question.id):"]
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
