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
    /// Where in the report to look.
    package var place = ""
    /// Whether a guest that does nothing at all can't have it right.
    package var isWork = true
  }

  /// The experiment's name.
  package let name: String
  /// Whose it is; nil where that wasn't said.
  package let student: String?
  /// All that was checked.
  package let items: [Item]
  /// Answers to questions that there are none of.
  package let unknown: [String]

  /// Grades a sheet of answers against what a run found. A `prediction` was made before: then each
  /// difference between it and the run is to be explained, by a line `why-QUESTION: ...`.
  package init(_ sheet: AnswerSheet, _ report: Report, prediction: AnswerSheet? = nil) {
    name = report.name
    student = sheet.student
    var items = report.questions.map { question in
      let seen = sheet.answers[question.id].flatMap { $0.isEmpty ? nil : $0 }
      return Item(
        id: question.id, text: question.text, expected: question.expected, seen: seen,
        isRight: seen.map(question.accepts) ?? false, points: question.points, place: question.place
      )
    }
    var known = Set(report.allQuestions.map(\.id))
    if let prediction {
      items.append(Self.explanations(sheet, report, prediction))
      known.formUnion(known.map { Self.why + $0 })
    }
    self.items = items
    unknown = sheet.answers.keys.filter { !known.contains($0) }.sorted()
  }

  /// What the name of an explanation begins with.
  static let why = "why-"
  /// Fewer words explain nothing. What they say is for the teacher to read.
  private static let leastWords = 5

  private static func explanations(
    _ sheet: AnswerSheet, _ report: Report, _ prediction: AnswerSheet
  ) -> Item {
    let different = report.questions.filter { !$0.accepts(prediction.answers[$0.id] ?? "") }
    let open = different.filter { question in
      let words = sheet.answers[why + question.id]?.split(whereSeparator: \.isWhitespace) ?? []
      return words.count < leastWords
    }
    return Item(
      id: "prediction",
      text: "each difference between prediction and run explained, by a line `\(why)QUESTION: ...`",
      expected: "none without", seen: open.isEmpty ? "none without" : list(open.map(\.id)),
      isRight: open.isEmpty, points: 2, place: "Predicted, and what came")
  }

  private static func list(_ names: [String]) -> String { names.joined(separator: ", ") }

  /// What a guest did. Who has done nothing of the work has earned nothing by ending in order.
  init(name: String, items: [Item]) {
    self.name = name
    student = nil
    unknown = []
    let hasWorked = items.contains { $0.isWork && $0.isRight }
    self.items =
      hasWorked
      ? items
      : items.map { item in
        Item(
          id: item.id, text: item.text, expected: item.expected, seen: item.seen, isRight: false,
          points: item.points, place: item.place, isWork: item.isWork)
      }
  }

  /// The points reached.
  package var points: Int { items.reduce(0) { $0 + ($1.isRight ? $1.points : 0) } }
  /// The points that there are.
  package var possiblePoints: Int { items.reduce(0) { $0 + $1.points } }
  /// Whether all is right.
  package var isPerfect: Bool { points == possiblePoints && unknown.isEmpty }
  /// The experiment's name, and whose grade it is.
  var title: String { (student.map { $0 + ": " } ?? "") + name }
}

/// Grades, written down.
package enum GradeReport {
  /// A way to write them.
  package enum Format: String, CaseIterable, Sendable {
    /// For people.
    case text
    /// The Test Anything Protocol, version 13.
    case tap
    /// The XML of JUnit that CI systems read.
    case junit
    /// An array of objects, for programs of one's own.
    case json
  }

  /// `grades` in `format`; what would have been right is told only if `showsAnswers`.
  package static func text(
    _ grades: [Grade], _ format: Format = .text, showsAnswers: Bool = false
  ) -> String {
    switch format {
    case .text:
      grades.map { plain($0, showsAnswers) }.joined(separator: "\n") + summary(grades)
    case .tap: tap(grades, showsAnswers)
    case .junit: junit(grades, showsAnswers)
    case .json: "[" + grades.map { json($0, showsAnswers) }.joined(separator: ",\n ") + "]\n"
    }
  }

  private static func plain(_ grade: Grade, _ showsAnswers: Bool) -> String {
    let titles = ["", "question", "#points", "seen", "where to look"]
    var table = Table("", titles + (showsAnswers ? ["expected"] : []))
    for item in grade.items {
      let cells = [
        item.isRight ? "ok" : "no", item.id, "\(item.isRight ? item.points : 0)/\(item.points)",
        item.seen ?? "(no answer)",
        item.isRight ? "" : item.place.isEmpty ? item.text : item.place,
      ]
      table.add(cells + (showsAnswers ? [item.expected] : []))
    }
    var lines = TextReport.lines(of: table)
    for id in grade.unknown { lines.append("there is no question '\(id)'") }
    return (lines + ["", "\(grade.title): \(grade.points) of \(grade.possiblePoints) points"])
      .joined(separator: "\n") + "\n"
  }

  private static func json(_ grade: Grade, _ showsAnswers: Bool) -> String {
    func text(_ text: String?) -> String { text.map(Markup.json) ?? "null" }
    let items = grade.items.map { item in
      "{\"id\":\(text(item.id)),\"is_right\":\(item.isRight),"
        + "\"points\":\(item.isRight ? item.points : 0),\"possible_points\":\(item.points),"
        + "\"seen\":\(text(item.seen)),\"look\":\(text(item.place.isEmpty ? item.text : item.place))"
        + (showsAnswers ? ",\"expected\":\(text(item.expected))}" : "}")
    }
    return "{\"lab\":\(text(grade.name)),\"student\":\(text(grade.student)),"
      + "\"points\":\(grade.points),\"possible_points\":\(grade.possiblePoints),\"items\":[\n  "
      + items.joined(separator: ",\n  ") + "],\n  \"notes\":["
      + grade.unknown.map { Markup.json("there is no question '\($0)'") }.joined(separator: ",")
      + "]}"
  }

  private static func summary(_ grades: [Grade]) -> String {
    guard grades.count > 1 else { return "" }
    var table = Table("", ["student", "#points", "#of"])
    for grade in grades {
      table.add([grade.student ?? "", "\(grade.points)", "\(grade.possiblePoints)"])
    }
    return "\n" + TextReport.lines(of: table).joined(separator: "\n") + "\n"
  }

  private static func tap(_ grades: [Grade], _ showsAnswers: Bool) -> String {
    let count = grades.reduce(0) { $0 + $1.items.count }
    var lines = ["TAP version 13", "1..\(count)"]
    var number = 0
    for grade in grades {
      for item in grade.items {
        number += 1
        let name = "\(grade.title) \(item.id)".replacing("#", with: "")
        lines.append("\(item.isRight ? "ok" : "not ok") \(number) - \(name)")
        guard !item.isRight else { continue }
        lines += ["  ---", "  points: \(item.points)"]
        if showsAnswers { lines.append("  expected: \(Markup.json(item.expected))") }
        lines += [
          "  seen: \(item.seen.map(Markup.json) ?? "null")",
          "  look: \(Markup.json(item.place.isEmpty ? item.text : item.place))", "  ...",
        ]
      }
      for id in grade.unknown { lines.append("# there is no question '\(id)'") }
      lines.append("# \(grade.title): \(grade.points) of \(grade.possiblePoints) points")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func junit(_ grades: [Grade], _ showsAnswers: Bool) -> String {
    let suites = grades.flatMap { suite($0, showsAnswers) }
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
    let lines = grades.count == 1 ? suites : ["<testsuites>"] + suites + ["</testsuites>"]
    return ([head] + lines).joined(separator: "\n") + "\n"
  }

  private static func suite(_ grade: Grade, _ showsAnswers: Bool) -> [String] {
    let wrong = grade.items.count { !$0.isRight }
    let title = Markup.xml(grade.title)
    var lines = [
      "<testsuite name=\"kvmlite lab \(title)\" tests=\"\(grade.items.count)\" "
        + "failures=\"\(wrong)\" errors=\"0\" skipped=\"0\">",
      "  <properties>",
    ]
    let student = grade.student.map { [("student", $0)] } ?? []
    for (name, value) in student + [
      ("points", "\(grade.points)"), ("possible_points", "\(grade.possiblePoints)"),
    ] { lines.append("    <property name=\"\(name)\" value=\"\(Markup.xml(value))\"/>") }
    lines.append("  </properties>")
    for item in grade.items {
      let start =
        "  <testcase classname=\"lab.\(Markup.xml(grade.name))\" name=\"\(Markup.xml(item.id))\""
      guard !item.isRight else {
        lines.append(start + "/>")
        continue
      }
      let look = item.place.isEmpty ? "" : "; look at: \(item.place)"
      let message =
        (showsAnswers ? "expected \(item.expected), " : "") + "seen \(item.seen ?? "no answer")"
        + look
      lines += [
        start + ">",
        "    <failure message=\"\(Markup.xml(message))\">\(Markup.xml(item.text))</failure>",
        "  </testcase>",
      ]
    }
    let words = grade.unknown.map { "there is no question '\($0)'" }.joined(separator: "\n")
    if !words.isEmpty { lines.append("  <system-out>\(Markup.xml(words))</system-out>") }
    return lines + ["</testsuite>"]
  }
}
