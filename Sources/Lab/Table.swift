/// Rows and columns of a report.
public struct Table: Sendable {
  /// A column.
  public struct Column: Sendable {
    /// Its heading.
    public let title: String
    /// Whether it holds numbers, which stand to the right.
    public let isNumeric: Bool
    /// Whether each character counts, as in a map: then all have one width.
    public let isMap: Bool
  }

  /// What the table shows, in a sentence.
  public let caption: String
  /// The columns.
  public let columns: [Column]
  /// The cells: each row has as many as there are columns.
  public private(set) var rows: [[String]] = []
  /// What must be known to read it, a sentence a line; why a cell is `n/a`, too.
  public private(set) var notes: [String] = []

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
