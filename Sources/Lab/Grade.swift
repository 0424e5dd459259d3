/// What a sheet of answers, or a student's guest, is worth.
package struct Grade: Sendable {
  /// One thing that was checked.
  package struct Item: Sendable {
    /// The question's or the check's name.
    package let id: String
    /// What was asked.
    package let text: String
    /// What this run says.
    package let expected: String
    /// What the student said, or the student's guest did; nil for no answer.
    package let seen: String?
    /// Whether it's right.
    package let isRight: Bool
    /// What it's worth if so.
    package let points: Int
  }

  /// A way to write a grade down.
  package enum Format: String, CaseIterable, Sendable {
    /// For people.
    case text
    /// The Test Anything Protocol, version 13.
    case tap
    /// The XML of JUnit that CI systems read.
    case junit
  }

  /// The experiment's name.
  package let name: String
  /// All that was checked.
  package let items: [Item]
  /// Answers to questions that there are none of.
  package let unknown: [String]

  /// Grades a sheet of answers against what a run found.
  package init(_ sheet: AnswerSheet, _ report: Report) {
    name = report.name
    items = report.questions.map { question in
      let seen = sheet.answers[question.id].flatMap { $0.isEmpty ? nil : $0 }
      return Item(
        id: question.id, text: question.text, expected: question.expected, seen: seen,
        isRight: seen.map(question.accepts) ?? false, points: question.points)
    }
    let known = Set(report.questions.map(\.id))
    unknown = sheet.answers.keys.filter { !known.contains($0) }.sorted()
  }

  init(name: String, items: [Item]) {
    self.name = name
    self.items = items
    unknown = []
  }

  /// The points reached.
  package var points: Int { items.reduce(0) { $0 + ($1.isRight ? $1.points : 0) } }
  /// The points that there are.
  package var possiblePoints: Int { items.reduce(0) { $0 + $1.points } }
  /// Whether all is right.
  package var isPerfect: Bool { points == possiblePoints && unknown.isEmpty }

  /// The grade in `format`.
  package func text(_ format: Format) -> String {
    switch format {
    case .text: plain()
    case .tap: tap()
    case .junit: junit()
    }
  }

  private func plain() -> String {
    var table = Table("", ["", "question", "#points", "expected", "seen"])
    for item in items {
      table.add([
        item.isRight ? "ok" : "no", item.id, "\(item.isRight ? item.points : 0)/\(item.points)",
        item.expected, item.seen ?? "(no answer)",
      ])
    }
    var lines = TextReport.lines(of: table)
    for id in unknown { lines.append("there is no question '\(id)'") }
    return (lines + ["", "\(name): \(points) of \(possiblePoints) points"])
      .joined(separator: "\n") + "\n"
  }

  private func tap() -> String {
    var lines = ["TAP version 13", "1..\(items.count)"]
    for (index, item) in items.enumerated() {
      let id = item.id.replacing("#", with: "")
      lines.append("\(item.isRight ? "ok" : "not ok") \(index + 1) - \(name) \(id)")
      if !item.isRight {
        lines += [
          "  ---", "  points: \(item.points)", "  expected: \(Markup.json(item.expected))",
          "  seen: \(item.seen.map(Markup.json) ?? "null")", "  ...",
        ]
      }
    }
    for id in unknown { lines.append("# there is no question '\(id)'") }
    lines.append("# \(points) of \(possiblePoints) points")
    return lines.joined(separator: "\n") + "\n"
  }

  private func junit() -> String {
    let wrong = items.count { !$0.isRight }
    var lines = [
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
      "<testsuite name=\"kvmlite lab \(Markup.xml(name))\" tests=\"\(items.count)\" "
        + "failures=\"\(wrong)\" errors=\"0\" skipped=\"0\">",
      "  <properties>",
      "    <property name=\"points\" value=\"\(points)\"/>",
      "    <property name=\"possible_points\" value=\"\(possiblePoints)\"/>",
      "  </properties>",
    ]
    for item in items {
      let start =
        "  <testcase classname=\"lab.\(Markup.xml(name))\" name=\"\(Markup.xml(item.id))\""
      guard !item.isRight else {
        lines.append(start + "/>")
        continue
      }
      let message = "expected \(item.expected), seen \(item.seen ?? "no answer")"
      lines += [
        start + ">",
        "    <failure message=\"\(Markup.xml(message))\">\(Markup.xml(item.text))</failure>",
        "  </testcase>",
      ]
    }
    let words = unknown.map { "there is no question '\($0)'" }.joined(separator: "\n")
    if !words.isEmpty { lines.append("  <system-out>\(Markup.xml(words))</system-out>") }
    return (lines + ["</testsuite>"]).joined(separator: "\n") + "\n"
  }
}
