/// Rows and columns of a report.
package struct Table: Sendable {
  /// A column.
  package struct Column: Sendable {
    /// Its heading.
    package let title: String
    /// Whether it holds numbers, which stand to the right.
    package let isNumeric: Bool
    /// Whether each character counts, as in a map: then all have one width.
    package let isMap: Bool
  }

  /// What the table shows, in a sentence.
  package let caption: String
  /// The columns.
  package let columns: [Column]
  /// The cells: each row has as many as there are columns.
  package private(set) var rows: [[String]] = []
  /// What must be known to read it, a sentence a line; why a cell is `n/a`, too.
  package private(set) var notes: [String] = []

  /// Makes an empty table; a title that begins with `#` is of a column of numbers, one with `=` of maps.
  init(_ caption: String, _ titles: [String]) {
    self.caption = caption
    columns = titles.map {
      let (isNumeric, isMap) = ($0.hasPrefix("#"), $0.hasPrefix("="))
      return Column(
        title: isNumeric || isMap ? String($0.dropFirst()) : $0, isNumeric: isNumeric, isMap: isMap)
    }
  }

  mutating func add(_ cells: [String]) {
    precondition(cells.count == columns.count, "a row of \(cells.count) in '\(caption)'")
    rows.append(cells)
  }

  mutating func note(_ text: String) { if !notes.contains(text) { notes.append(text) } }

  /// What stands where nothing could be measured.
  static let notMeasured = "n/a"
}
