/// A table whose columns are as wide as they have to be.
struct TextTable {
  private var rows: [[String]]

  /// One with these headings.
  init(_ headings: [String]) { rows = [headings] }

  /// Adds a row; cells that it lacks stay empty.
  mutating func add(_ cells: [String]) { rows.append(cells) }

  /// A line for each row.
  var text: String {
    let count = rows.map(\.count).max() ?? 0
    // A row's last cell may reach into what is empty behind it.
    let widths = (0..<count).map { index in
      rows.filter { index < $0.count - 1 }.map { $0[index].count }.max() ?? 0
    }
    return rows.map { row in
      row.indices.map { index in
        index == row.count - 1 ? row[index] : column(row[index], widths[index] + 2)
      }.joined() + "\n"
    }.joined()
  }
}

/// A time in nanoseconds by its two largest units.
func duration(_ nanoseconds: UInt64) -> String {
  let seconds = nanoseconds / 1_000_000_000
  switch seconds {
  case 0: return "\(nanoseconds / 1_000_000) ms"
  case ..<60: return "\(seconds) s"
  case ..<3600: return "\(seconds / 60) min \(seconds % 60) s"
  case ..<86400: return "\(seconds / 3600) h \(seconds / 60 % 60) min"
  default: return "\(seconds / 86400) d \(seconds / 3600 % 24) h"
  }
}
