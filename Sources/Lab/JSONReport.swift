/// A report for machines: one JSON object.
package enum JSONReport {
  /// The whole report.
  package static func text(_ report: Report) -> String {
    let backEnd = report.backEnd.map {
      "{\"name\":\(Markup.json($0.name)),\"summary\":\(Markup.json($0.summary)),\"notes\":"
        + list($0.notes) + "}"
    }
    let tables = report.blocks.compactMap { block -> String? in
      guard case .table(let table) = block else { return nil }
      return "{\"caption\":\(Markup.json(table.caption)),\"columns\":"
        + list(table.columns.map(\.title)) + ",\"rows\":["
        + table.rows.map(list).joined(separator: ",") + "],\"notes\":" + list(table.notes) + "}"
    }
    let facts = report.facts.map { "\(Markup.json($0.key)):\(value($0.value))" }
    let questions = report.allQuestions.map {
      "{\"id\":\(Markup.json($0.id)),\"text\":\(Markup.json($0.text)),"
        + "\"form\":\(Markup.json($0.form)),\"points\":\($0.points)}"
    }
    return "{\"lab\":\(Markup.json(report.name)),\"title\":\(Markup.json(report.title)),"
      + "\"back_end\":\(backEnd ?? "null"),"
      + "\"processor_of_software\":\(report.times.maker.map(Markup.json) ?? "null"),\"facts\":{\(facts.joined(separator: ","))},"
      + "\"tables\":[\(tables.joined(separator: ","))],"
      + "\"questions\":[\(questions.joined(separator: ","))]}\n"
  }

  private static func list(_ texts: [String]) -> String {
    "[" + texts.map(Markup.json).joined(separator: ",") + "]"
  }

  private static func value(_ fact: Report.Fact) -> String {
    switch fact {
    case .text(let text): Markup.json(text)
    case .number(let number): "\(number)"
    case .flag(let flag): "\(flag)"
    case .list(let facts): "[" + facts.map(value).joined(separator: ",") + "]"
    }
  }
}
