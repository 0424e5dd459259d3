import ArgumentParser
import Host
import Storage

extension DiskCommand {
  /// `disk map`.
  struct Map: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract:
        "Say which parts of a disk are in which image: the overlay's, its base's, nobody's.",
      discussion: """
        For example:
          kvmlite disk map vm1.qcow2
          kvmlite disk map --svg vm1.qcow2 > vm1.svg

        Depth 0 is the image itself, 1 its base, 2 the base's base, and so on.
        """)

    @Argument(help: "The image.")
    var path: String

    @Option(help: "Its format. (default: by its magic number)")
    var format: DiskFormat?

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(help: "Draw a picture.")
    var svg = false

    func run() throws {
      try reporting(writes: false) { () throws(DiskError) in
        var options = DiskImage.Options()
        options.format = format
        options.isReadOnly = true
        let store = try DiskImage.open(path, options).store
        if svg {
          var picture = DiskMapSVG(size: store.size, name: path)
          try forEach(store) { picture.add($0) }
          say(picture.text())
        } else if json {
          var separator = "["
          try forEach(store) { extent in
            say(separator + Self.json(extent))
            separator = " "
          }
          say(separator == "[" ? "[]" : "]")
        } else {
          say(row("start", "length", "depth", "what", "offset in file"))
          try forEach(store) { extent in
            say(
              row(
                hex(extent.start), hex(extent.count),
                extent.kind == .hole ? "-" : "\(extent.depth)", extent.kind.rawValue,
                extent.offset.map(hex) ?? "-"))
          }
        }
      }
    }

    private func forEach(
      _ store: any BlockStore, _ body: (DiskExtent) -> Void
    ) throws(DiskError) {
      if let error = DiskMap.forEach(of: store, body) { throw DiskError(reading: path, error) }
    }

    private func row(
      _ start: String, _ length: String, _ depth: String, _ kind: String, _ offset: String
    ) -> String {
      rightColumn(start, 14) + rightColumn(length, 14) + rightColumn(depth, 7) + "  "
        + column(kind, 12) + offset
    }

    private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    // Each line but the first begins with what separates it from the one before.
    private static func json(_ extent: DiskExtent) -> String {
      (extent.start == 0 ? "" : ",")
        + "{\"start\": \(extent.start), \"length\": \(extent.count), "
        + "\"depth\": \(extent.kind == .hole ? "null" : "\(extent.depth)"), "
        + "\"kind\": \"\(extent.kind.rawValue)\", "
        + "\"offset\": \(extent.offset.map { "\($0)" } ?? "null")}"
    }
  }
}

/// A disk as a picture: one square for each part of it, in the colour of the image that has most of
/// what is there.
struct DiskMapSVG {
  private static let columns = 64
  private static let side = 10
  private static let mostCells: UInt64 = 64 * 48
  private static let colours = ["#d9480f", "#1971c2", "#2f9e44", "#9c36b5", "#e8a800"]
  private let size: UInt64
  private let name: String
  private let cellSize: UInt64
  // Bytes for each cell: by depth, and holes and zeros last.
  private var cells: [[UInt64]]

  init(size: UInt64, name: String) {
    self.size = size
    self.name = name
    cellSize = max(65536, (size + Self.mostCells - 1) / Self.mostCells)
    let count = Int((size + cellSize - 1) / cellSize)
    cells = Array(repeating: Array(repeating: 0, count: Self.colours.count + 1), count: count)
  }

  mutating func add(_ extent: DiskExtent) {
    let layer =
      extent.kind == .hole || extent.kind == .zero
      ? Self.colours.count : min(extent.depth, Self.colours.count - 1)
    var position = extent.start
    let end = extent.start + extent.count
    while position < end {
      let cell = Int(position / cellSize)
      let next = min(end, (UInt64(cell) + 1) * cellSize)
      cells[cell][layer] += next - position
      position = next
    }
  }

  func text() -> String {
    let rows = (cells.count + Self.columns - 1) / Self.columns
    let width = Self.columns * Self.side + 20
    let height = rows * Self.side + 70
    var svg = """
      <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="\(height)" \
      font-family="sans-serif" font-size="12">
      <rect width="100%" height="100%" fill="white"/>
      <text x="10" y="20">\(escaped(name)): \(byteCount(size)), a square is \
      \(byteCount(cellSize))</text>

      """
    for (index, cell) in cells.enumerated() {
      let x = 10 + index % Self.columns * Self.side
      let y = 30 + index / Self.columns * Self.side
      // Data shows even where most is zeros.
      let layer = (0..<Self.colours.count).max { cell[$0] < cell[$1] } ?? 0
      let fill = cell[layer] > 0 ? Self.colours[layer] : "#e9ecef"
      let side = Self.side - 1
      svg += "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(side)\" height=\"\(side)\" fill=\"\(fill)\"/>\n"
    }
    let y = height - 18
    for (index, label) in ["image", "base", "its base", "below", "deeper", "zeros"].enumerated() {
      let x = 10 + index * 90
      let fill = index < Self.colours.count ? Self.colours[index] : "#e9ecef"
      svg += "<rect x=\"\(x)\" y=\"\(y - 10)\" width=\"10\" height=\"10\" fill=\"\(fill)\"/>"
      svg += "<text x=\"\(x + 15)\" y=\"\(y)\">\(label)</text>\n"
    }
    return svg + "</svg>"
  }

  private func escaped(_ text: String) -> String {
    var result = ""
    for character in DiskCommand.printable(text) {
      switch character {
      case "<": result += "&lt;"
      case "&": result += "&amp;"
      default: result.append(character)
      }
    }
    return result
  }
}
