import Glibc

/// The pictures of `io-models`.
enum IOModelPictures {
  /// Exits for each 4 KiB against the batch size, both logarithmic.
  static func exits(_ results: [IOModels.Result]) -> Picture {
    var picture = Picture(
      "Exits to user space for each 4 KiB (y) by batch size (x), both on logarithmic scales.",
      width: 860, height: 460)
    picture.label(12, 22, "Exits to user space for each 4 KiB", size: 15)
    let points = results.map { result in
      result.cells.map { (batch: $0.batch, exits: max(1e-3, $0.per4K($0.userExits))) }
    }
    let all = points.flatMap { $0.map(\.exits) }
    let low = Int(log10(all.min() ?? 1).rounded(.down))
    let high = max(low + 1, Int(log10(all.max() ?? 1).rounded(.up)))
    let (left, right, top, bottom) = (70.0, 640.0, 44.0, 400.0)
    func y(_ value: Double) -> Double {
      bottom - (log10(value) - Double(low)) / Double(high - low) * (bottom - top)
    }
    func x(_ batch: Int) -> Double { left + log2(Double(batch)) / 8 * (right - left) }
    for power in low...high {
      let value = pow(10, Double(power))
      picture.line(left, y(value), right, y(value), stroke: "#ddd")
      picture.label(
        left - 8, y(value) + 4, decimal(value, max(0, -power)), size: 11, anchor: .end)
    }
    for batch in IOModels.batches {
      picture.line(x(batch), top, x(batch), bottom, stroke: "#eee")
      picture.label(x(batch), bottom + 18, "\(batch)", size: 11, anchor: .middle)
    }
    picture.label(
      (left + right) / 2, bottom + 40, "batch (bytes, sectors or requests)", size: 12,
      anchor: .middle)
    for (index, result) in results.enumerated() {
      let colour = Picture.colours[index % Picture.colours.count]
      // The same doorbell: so that of two curves on top of each other both show.
      let isThick = result.model == .ioeventfd
      for (a, b) in zip(points[index], points[index].dropFirst()) {
        picture.line(
          x(a.batch), y(a.exits), x(b.batch), y(b.exits), stroke: colour,
          width: isThick ? 7 : 2)
      }
      let half = isThick ? 7.0 : 4.0
      for point in points[index] {
        picture.rectangle(
          x(point.batch) - half, y(point.exits) - half, 2 * half, 2 * half, fill: colour,
          tip: "\(result.model.rawValue), batch \(point.batch): \(decimal(point.exits, 2))")
      }
      let row = top + 16 + Double(index) * 24
      picture.rectangle(right + 30, row - 10, 12, 12, fill: colour)
      picture.label(right + 50, row + 1, result.model.rawValue)
    }
    picture.label(
      right + 30, top + 40 + Double(results.count) * 24, "a thin curve may lie", size: 11,
      fill: "#666")
    picture.label(
      right + 30, top + 54 + Double(results.count) * 24, "on a thick one", size: 11, fill: "#666")
    return picture
  }

  /// Throughput as bars for some batch sizes, on a logarithmic scale.
  static func throughput(_ results: [IOModels.Result], mark: String) -> Picture {
    let batches = [1, 16, 256]
    let lane = 74.0
    let (left, right) = (150.0, 740.0)
    var picture = Picture(
      "Throughput in MB/s by model, for batches of 1, 16 and 256, on a logarithmic scale." + mark,
      width: 860, height: 96 + lane * Double(results.count))
    picture.label(12, 22, "Throughput", size: 15)
    let bars = results.map { result in
      batches.map { batch in
        result.cell(batch).map { $0.megabytesPerSecond($0.elapsed.median) } ?? 0
      }
    }
    let all = bars.flatMap { $0 }.filter { $0 > 0 }
    let low = Int(log10(all.min() ?? 1).rounded(.down))
    let high = max(low + 1, Int(log10(all.max() ?? 1).rounded(.up)))
    func x(_ value: Double) -> Double {
      left + (log10(value) - Double(low)) / Double(high - low) * (right - left)
    }
    let bottom = 40 + lane * Double(results.count)
    for power in low...high {
      let value = pow(10, Double(power))
      picture.line(x(value), 36, x(value), bottom, stroke: "#ddd")
      picture.label(
        x(value), bottom + 16, decimal(value, max(0, -power)), size: 11, anchor: .middle)
    }
    picture.label((left + right) / 2, bottom + 38, "MB/s", size: 12, anchor: .middle)
    picture.legend(
      left, 24, batches.enumerated().map { (Picture.colours[$0], "batches of \($1)") })
    for (index, result) in results.enumerated() {
      let top = 44 + Double(index) * lane
      picture.label(12, top + 34, result.model.rawValue)
      for (row, value) in bars[index].enumerated() where value > 0 {
        let y = top + Double(row) * 20
        picture.rectangle(
          left, y, max(2, x(value) - left), 17, fill: Picture.colours[row])
        picture.label(left - 8, y + 13, "\(batches[row])", size: 11, anchor: .end, fill: "#666")
        picture.label(
          max(left + 2, x(value)) + 6, y + 13, decimal(value, value < 0.1 ? 3 : value < 10 ? 2 : 0),
          size: 11)
      }
    }
    return picture
  }
}
