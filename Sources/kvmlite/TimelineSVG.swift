/// Draws a timeline as an SVG picture: a lane for each device's exits and each ring's or drive's
/// requests, as bars over time.
struct TimelineSVG {
  private let timeline: Timeline

  private let left = 290.0
  private let width = 800.0
  private let right = 90.0
  private let top = 64.0
  private let laneHeight = 46.0
  private let binCount = 200

  init(_ timeline: Timeline) { self.timeline = timeline }

  /// The whole picture.
  func text() -> String {
    let height = top + Double(timeline.lanes.count) * laneHeight + 40
    let exits = timeline.lanes.filter(\.isExits)
    let total = exits.reduce(0) { $0 + $1.times.count }
    let requests = timeline.lanes.reduce(0) { $0 + ($1.isExits ? 0 : $1.times.count) }
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(number(left + width + right))\" "
        + "height=\"\(number(height))\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
      label(16, 26, "Exits and requests by device over time", size: 17),
      label(
        16, 46,
        "\(total) exits to kvmlite and \(requests) requests in \(time(timeline.end)), "
          + "\(timeline.vcpuCount) VCPU(s), \(percentage(timeline.inGuest)) of the VCPUs' time in the guest and KVM"
      ),
    ]
    lines += axis(bottom: height - 40)
    for (index, lane) in timeline.lanes.enumerated() {
      lines += draw(lane, y: top + Double(index) * laneHeight, colour: colour(index))
    }
    return (lines + ["</svg>"]).joined(separator: "\n") + "\n"
  }

  // MARK: Parts

  private func draw(_ lane: Timeline.Lane, y: Double, colour: String) -> [String] {
    var bins = [Int](repeating: 0, count: binCount)
    for moment in lane.times {
      bins[min(binCount - 1, Int(moment / timeline.end * Double(binCount)))] += 1
    }
    let most = bins.max() ?? 1
    let room = laneHeight - 12
    let base = y + laneHeight - 6
    var lines = [
      label(16, y + 22, lane.device),
      label(
        16, y + 38,
        "\(lane.times.count) \(lane.isExits ? "exits" : "requests"), \(time(lane.handling))",
        size: 11),
      "<line x1=\"\(number(left))\" y1=\"\(number(base))\" x2=\"\(number(left + width))\" "
        + "y2=\"\(number(base))\" stroke=\"#bbb\"/>",
      label(left + width + 8, y + 22, "up to \(most)", size: 11),
      label(left + width + 8, y + 36, "in \(time(timeline.end / Double(binCount)))", size: 11),
    ]
    let step = width / Double(binCount)
    for (index, count) in bins.enumerated() where count > 0 {
      // One exit still shows.
      let bar = max(2, Double(count) / Double(most) * room)
      lines.append(
        "<rect x=\"\(number(left + Double(index) * step))\" y=\"\(number(base - bar))\" "
          + "width=\"\(number(step))\" height=\"\(number(bar))\" fill=\"\(colour)\"/>")
    }
    return lines
  }

  private func axis(bottom: Double) -> [String] {
    let step = tickStep()
    var lines: [String] = []
    var tick = 0.0
    while tick <= timeline.end {
      let x = number(left + tick / timeline.end * width)
      lines.append(
        "<line x1=\"\(x)\" y1=\"\(number(top))\" x2=\"\(x)\" y2=\"\(number(bottom))\" "
          + "stroke=\"#e5e5e5\"/>")
      lines.append(
        "<text x=\"\(x)\" y=\"\(number(bottom + 18))\" text-anchor=\"middle\" font-size=\"11\">"
          + "\(time(tick))</text>")
      tick += step
    }
    return lines
  }

  /// 1, 2 or 5 times a power of ten, so that there are five to ten ticks.
  private func tickStep() -> Double {
    var step = 1.0
    while true {
      for factor in [1.0, 2, 5] where timeline.end / (step * factor) <= 10 { return step * factor }
      step *= 10
    }
  }

  // MARK: Words and numbers

  private func label(_ x: Double, _ y: Double, _ text: String, size: Int = 13) -> String {
    let safe = DiskCommand.printable(text).map { character in
      switch character {
      case "<": "&lt;"
      case "&": "&amp;"
      case "\u{FFFE}", "\u{FFFF}": "?"  // XML has neither
      default: String(character)
      }
    }.joined()
    return "<text x=\"\(number(x))\" y=\"\(number(y))\" font-size=\"\(size)\">\(safe)</text>"
  }

  private func colour(_ index: Int) -> String {
    let colours = ["#3465a4", "#cc4c02", "#4e9a06", "#75507b", "#b8860b", "#06989a", "#a40000"]
    return colours[index % colours.count]
  }

  /// With one decimal, as SVG needs no more.
  private func number(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return tenths % 10 == 0 ? "\(tenths / 10)" : "\(tenths / 10).\(abs(tenths % 10))"
  }

  private func time(_ microseconds: Double) -> String {
    switch microseconds {
    case 1_000_000...: number(microseconds / 1_000_000) + " s"
    case 1000...: number(microseconds / 1000) + " ms"
    default: number(microseconds) + " us"
    }
  }

  private func percentage(_ inGuest: Double) -> String {
    let handling = timeline.lanes.reduce(0) { $0 + ($1.isExits ? $1.handling : 0) }
    return number(inGuest / max(inGuest + handling, 1e-9) * 100) + "%"
  }
}
