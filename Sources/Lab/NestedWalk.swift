import Inspect

/// A walk with nested paging, reference by reference: for each entry of the guest's tables, and for the
/// page itself, the processor goes through all of the host's.
struct NestedWalk {
  /// One thing of the guest's that has to be found in the host's memory.
  struct Row {
    /// What is found, such as `PML4 entry`.
    let name: String
    /// Its guest-physical address.
    let address: UInt64
    /// The host's entries that lead to it, by their number among all references.
    let host: [(number: Int, index: Int)]
    /// The number of the reference that reads it; nil for the page, whose data isn't counted.
    let read: Int?
  }

  /// The levels of the host's tables with pages of 4 KiB.
  static let hostLevels: [(name: String, shift: UInt64)] = [
    ("PML4", 39), ("PDPT", 30), ("PD", 21), ("PT", 12),
  ]

  let rows: [Row]
  /// How many references there are in all.
  let count: Int

  /// The references of `walk`, which led to `physical`.
  init(_ walk: PageWalk, physical: UInt64) {
    var number = 0
    func next() -> Int {
      number += 1
      return number
    }
    let things =
      walk.steps.map { ("\($0.table) entry", $0.address.value, true) } + [("page", physical, false)]
    rows = things.map { name, address, isEntry in
      let host = Self.hostLevels.map { (number: next(), index: Int(address >> $0.shift & 511)) }
      return Row(name: name, address: address, host: host, read: isEntry ? next() : nil)
    }
    count = number
  }

  /// The grid as a table.
  var table: Table {
    var table = Table(
      "The nested walk: each of its \(count) references by number, with the index it uses",
      ["to find the guest's", "at guest-physical"] + Self.hostLevels.map { "#host's " + $0.name }
        + ["#then read it"])
    for row in rows {
      table.add(
        [row.name, hex(row.address)] + row.host.map { "\($0.number) [\($0.index)]" }
          + [row.read.map { "\($0)" } ?? "(data)"])
    }
    table.note(
      "With pages of 4 KiB on both sides. What the host's entries hold is the host's secret; which of "
        + "them are read follows from the guest-physical address.")
    return table
  }

  /// The grid as a picture: to the right through the host's tables, down through the guest's.
  var picture: Picture {
    let (left, top, width, height) = (210.0, 84.0, 116.0, 46.0)
    var picture = Picture(
      "A nested walk as a grid: a row for each thing of the guest's, a column for each table of the "
        + "host's.", width: 860, height: top + height * Double(rows.count) + 20)
    picture.label(12, 22, "\(count) references for one address", size: 15)
    picture.legend(
      12, 44,
      [
        ("#cfe2f3", "an entry of the host's"), ("#d9ead3", "an entry of the guest's"),
        ("#f3f3f3", "the data itself, not counted"),
      ])
    for (column, level) in (Self.hostLevels.map(\.name) + ["the guest's"]).enumerated() {
      picture.label(left + width * Double(column) + width / 2, top - 10, level, anchor: .middle)
    }
    for (index, row) in rows.enumerated() {
      let y = top + height * Double(index)
      picture.label(12, y + 18, row.name)
      picture.label(12, y + 33, "at \(hex(row.address))", size: 11, fill: "#666", isFixed: true)
      for column in 0...row.host.count {
        let x = left + width * Double(column)
        let isHost = column < row.host.count
        let fill = isHost ? "#cfe2f3" : row.read == nil ? "#f3f3f3" : "#d9ead3"
        picture.rectangle(x, y, width - 16, height - 12, fill: fill, stroke: "#888")
        let text = isHost ? "\(row.host[column].number)" : row.read.map { "\($0)" } ?? "data"
        picture.label(x + 10, y + 22, text, size: 15)
        if isHost {
          picture.label(
            x + width - 24, y + 22, "[\(row.host[column].index)]", size: 11, anchor: .end,
            fill: "#444", isFixed: true)
          picture.arrow(x + width - 16, y + 17, x + width - 1, y + 17)
        } else if index + 1 < rows.count {
          picture.arrow(x + 50, y + height - 12, x + 50, y + height - 1)
        }
      }
    }
    return picture
  }
}
