/// A report for a terminal.
package enum TextReport {
  /// The whole report.
  package static func text(_ report: Report, isColoured: Bool = false) -> String {
    func bold(_ text: String) -> String { isColoured ? "\u{1B}[1m\(text)\u{1B}[0m" : text }
    var lines = [bold("\(report.name): \(report.title)"), ""]
    let backEnd = report.backEndLines
    lines.append("back end  " + backEnd[0])
    for note in backEnd.dropFirst() { lines.append("          " + note) }
    for block in report.blocks {
      switch block {
      case .heading(let text): lines += ["", bold(text)]
      case .text(let text): lines += [""] + wrapped(text)
      case .table(let table):
        lines += ["", table.caption, ""] + self.lines(of: table)
      case .picture: break
      }
    }
    if !report.questions.isEmpty {
      lines += ["", bold("Questions"), ""]
      for question in report.allQuestions {
        let points = question.points == 1 ? "1 point" : "\(question.points) points"
        lines += wrapped(
          "\(question.id) (\(points)): \(question.text) (\(question.form))", hanging: 2)
      }
      lines += ["", "A sheet to fill in: kvmlite lab \(report.name) --sheet"]
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The lines of a table, with columns aligned.
  static func lines(of table: Table) -> [String] {
    let cells = [table.columns.map(\.title)] + table.rows
    let widths = table.columns.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
    func line(_ row: [String]) -> String {
      let padded = row.indices.map { column in
        let space = String(repeating: " ", count: widths[column] - row[column].count)
        return table.columns[column].isNumeric ? space + row[column] : row[column] + space
      }
      var text = "  " + padded.joined(separator: "  ")
      while text.last == " " { text.removeLast() }
      return text
    }
    var lines = [line(cells[0]), line(widths.map { String(repeating: "-", count: $0) })]
    lines += table.rows.map(line)
    for note in table.notes { lines += wrapped("  " + note, hanging: 2) }
    return lines
  }

  /// `text` in lines of at most 96 characters, broken at spaces.
  static func wrapped(_ text: String, hanging: Int = 0) -> [String] {
    let indent = String(text.prefix { $0 == " " })
    var lines: [String] = []
    var line = indent
    var isEmpty = true
    for word in text.split(separator: " ") {
      if !isEmpty && line.count + 1 + word.count > 96 {
        lines.append(line)
        line = String(repeating: " ", count: max(hanging, indent.count))
        isEmpty = true
      }
      line += (isEmpty ? "" : " ") + word
      isEmpty = false
    }
    return lines + [line]
  }
}
