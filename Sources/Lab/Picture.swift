/// An SVG picture of a report.
package struct Picture: Sendable {
  /// What it shows, in a sentence.
  package let caption: String
  /// Its width in pixels.
  package let width: Double
  /// Its height in pixels.
  package let height: Double
  private var elements: [String] = []

  /// The colours that mean something of their own, by rising index.
  static let colours = [
    "#3465a4", "#cc4c02", "#4e9a06", "#75507b", "#b8860b", "#06989a", "#a40000", "#888a85",
  ]

  init(_ caption: String, width: Double, height: Double) {
    self.caption = caption
    self.width = width
    self.height = height
  }

  /// The picture as an element of HTML or, as it names its namespace, as a file.
  package var svg: String {
    let size = "width=\"\(number(width))\" height=\"\(number(height))\""
    let box = "viewBox=\"0 0 \(number(width)) \(number(height))\""
    return
      ([
        "<svg xmlns=\"http://www.w3.org/2000/svg\" \(size) \(box) role=\"img\" "
          + "font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">",
        "<title>\(Markup.xml(caption))</title>",
        "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
      ] + elements + ["</svg>"]).joined(separator: "\n")
  }

  /// Where a label's position is in it.
  enum Anchor: String { case start, middle, end }

  mutating func rectangle(
    _ x: Double, _ y: Double, _ width: Double, _ height: Double, fill: String,
    stroke: String? = nil, tip: String? = nil
  ) {
    let border = stroke.map { " stroke=\"\($0)\"" } ?? ""
    let start =
      "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" "
      + "height=\"\(number(height))\" fill=\"\(fill)\"\(border)"
    elements.append(
      tip.map { start + "><title>\(Markup.xml($0))</title></rect>" } ?? start + "/>")
  }

  /// An ellipse about a centre, which what is below shines through.
  mutating func ellipse(
    _ x: Double, _ y: Double, _ radiusX: Double, _ radiusY: Double, fill: String, stroke: String
  ) {
    elements.append(
      "<ellipse cx=\"\(number(x))\" cy=\"\(number(y))\" rx=\"\(number(radiusX))\" "
        + "ry=\"\(number(radiusY))\" fill=\"\(fill)\" fill-opacity=\"0.25\" stroke=\"\(stroke)\"/>")
  }

  mutating func line(
    _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, stroke: String = "#888",
    width: Double = 1, isDashed: Bool = false
  ) {
    let dashes = isDashed ? " stroke-dasharray=\"5 4\"" : ""
    elements.append(
      "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\" "
        + "stroke=\"\(stroke)\" stroke-width=\"\(number(width))\"\(dashes)/>")
  }

  /// A line with a head at its end.
  mutating func arrow(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) {
    line(x1, y1, x2, y2, stroke: "#555", width: 1.5)
    let length = max(((x2 - x1) * (x2 - x1) + (y2 - y1) * (y2 - y1)).squareRoot(), 1e-9)
    let (dx, dy) = ((x2 - x1) / length * 7, (y2 - y1) / length * 7)
    let points = [
      (x2, y2), (x2 - dx - dy / 2, y2 - dy + dx / 2), (x2 - dx + dy / 2, y2 - dy - dx / 2),
    ]
    let list = points.map { "\(number($0.0)),\(number($0.1))" }.joined(separator: " ")
    elements.append("<polygon points=\"\(list)\" fill=\"#555\"/>")
  }

  mutating func label(
    _ x: Double, _ y: Double, _ text: String, size: Int = 13, anchor: Anchor = .start,
    fill: String? = nil, isFixed: Bool = false
  ) {
    let colour = fill.map { " fill=\"\($0)\"" } ?? ""
    let place = anchor == .start ? "" : " text-anchor=\"\(anchor.rawValue)\""
    let font = isFixed ? " font-family=\"monospace\"" : ""
    elements.append(
      "<text x=\"\(number(x))\" y=\"\(number(y))\" font-size=\"\(size)\"\(place)\(font)\(colour)>"
        + "\(Markup.xml(text))</text>")
  }

  /// What colours mean: a small field and its words each, from left to right.
  mutating func legend(_ x: Double, _ y: Double, _ entries: [(fill: String, text: String)]) {
    var x = x
    for entry in entries {
      rectangle(x, y - 10, 12, 12, fill: entry.fill, stroke: "#888")
      label(x + 18, y, entry.text, size: 11, fill: "#444")
      x += 34 + Double(entry.text.count) * 6.2
    }
  }

  private func number(_ value: Double) -> String {
    let text = decimal(value)
    return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
  }
}
