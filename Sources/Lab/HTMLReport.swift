/// A report as one HTML page that needs nothing else: pictures are inside, there is no script.
package enum HTMLReport {
  /// The whole page.
  package static func text(_ report: Report) -> String {
    let title = Markup.xml("\(report.name): \(report.title)")
    var lines = [
      "<!DOCTYPE html>", "<html lang=\"en\">", "<head>", "<meta charset=\"utf-8\"/>",
      "<meta name=\"viewport\" content=\"width=device-width\"/>", "<title>\(title)</title>",
      "<style>\(style)</style>", "</head>", "<body>", "<h1>\(title)</h1>",
    ]
    let backEnd = report.backEndLines.map(Markup.xml)
    lines.append("<p class=\"back-end\"><b>Back end</b> \(backEnd.joined(separator: "<br/>"))</p>")
    for block in report.blocks {
      switch block {
      case .heading(let text): lines.append("<h2>\(Markup.xml(text))</h2>")
      case .text(let text): lines.append("<p>\(Markup.html(text))</p>")
      case .table(let table): lines += self.lines(of: table)
      case .picture(let picture):
        lines += [
          "<figure>", picture.svg, "<figcaption>\(Markup.xml(picture.caption))</figcaption>",
          "</figure>",
        ]
      }
    }
    if !report.questions.isEmpty {
      lines += ["<h2>Questions</h2>", "<dl>"]
      for question in report.allQuestions {
        lines.append(
          "<dt>\(Markup.xml(question.id)) <small>\(question.points)</small></dt>"
            + "<dd>\(Markup.xml(question.text)) <small>(\(Markup.xml(question.form)))</small></dd>")
      }
      lines += [
        "</dl>", "<p>A sheet to fill in: <code>kvmlite lab \(report.name) --sheet</code></p>",
      ]
    }
    return (lines + ["</body>", "</html>"]).joined(separator: "\n") + "\n"
  }

  private static func lines(of table: Table) -> [String] {
    func row(_ cells: [String], _ tag: String) -> String {
      let html = cells.indices.map { index in
        let column = table.columns[index]
        let kind =
          column.isNumeric ? " class=\"number\"" : column.isMap ? " class=\"map\"" : ""
        return "<\(tag)\(kind)>\(Markup.xml(cells[index]))</\(tag)>"
      }
      return "<tr>\(html.joined())</tr>"
    }
    var lines = ["<div class=\"table\"><table>", "<caption>\(Markup.xml(table.caption))</caption>"]
    lines += ["<thead>" + row(table.columns.map(\.title), "th") + "</thead>", "<tbody>"]
    lines += table.rows.map { row($0, "td") }
    lines += ["</tbody>", "</table></div>"]
    return lines + table.notes.map { "<p class=\"note\">\(Markup.html($0))</p>" }
  }

  private static let style = """
    :root{color-scheme:light}
    body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
    body{color:#222;background:#fff}
    h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
    .back-end{background:#f3f3f3;padding:.6rem 1rem}.note{font-size:.85rem;margin:.2rem 0}
    table{border-collapse:collapse;font-size:.85rem}
    caption{text-align:left;white-space:nowrap;padding:.3rem 0;font-style:italic}
    th,td{text-align:left;padding:.2rem .7rem;border-bottom:1px solid #ddd;vertical-align:top}
    .number{text-align:right;font-variant-numeric:tabular-nums}td.number{white-space:nowrap}
    td.map{font-family:monospace;white-space:pre}.table{overflow-x:auto;margin:1rem 0}
    figure{margin:1.5rem 0}svg{max-width:100%;height:auto}
    figcaption{font-size:.85rem}dt{font-weight:bold;margin-top:.6rem}
    """
}
