import Host

/// How far something is, on standard error if that is a terminal.
struct ProgressBar {
  private static let file = FileDescriptor(borrowing: 2)
  private static let width: UInt64 = 40
  private let isShown = ProgressBar.file.isTerminal
  private var last: UInt64 = .max

  /// Shows that `done` of `all` bytes are done.
  mutating func show(_ done: UInt64, of all: UInt64) {
    guard isShown, all > 0 else { return }
    let percent = UInt64(Double(done) / Double(all) * 100)
    guard percent != last else { return }
    last = percent
    let filled = Int(percent * Self.width / 100)
    let bar =
      String(repeating: "#", count: filled)
      + String(repeating: ".", count: Int(Self.width) - filled)
    try? Self.file.writeAll("\r[\(bar)] \(rightColumn("\(percent)", 3)) %")
  }

  /// Ends the line.
  mutating func end() {
    if isShown && last != .max { try? Self.file.writeAll("\n") }
    last = .max
  }
}

/// How far something is that mostly takes no time.
struct LateProgress {
  private var bar = ProgressBar()
  private let start = Clock.monotonicNanoseconds

  mutating func show(_ done: UInt64, of all: UInt64) {
    if Clock.monotonicNanoseconds &- start > 1_000_000_000 { bar.show(done, of: all) }
  }

  mutating func end() { bar.end() }
}
