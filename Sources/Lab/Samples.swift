/// Measurements of one thing, sorted.
struct Samples: Sendable {
  let sorted: [UInt64]

  init(_ values: [UInt64]) { sorted = values.sorted() }

  /// The value below which the share `share` (0 to 1) lies; 0 if there are none.
  func quantile(_ share: Double) -> UInt64 {
    guard !sorted.isEmpty else { return 0 }
    return sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
  }

  var median: UInt64 { quantile(0.5) }

  /// How many have their highest bit at each position: bin n is 2^n to 2^(n+1)-1, 0 is in bin 0.
  var bins: [Int] {
    var bins = [Int](repeating: 0, count: 64)
    for value in sorted { bins[value == 0 ? 0 : 63 - value.leadingZeroBitCount] += 1 }
    return bins
  }

  /// Whether something else must have run meanwhile: what is measured here is alike from turn to turn,
  /// so on a quiet host few are far from the fastest.
  var isSpoiled: Bool {
    let (fast, median, slow) = (quantile(0.1), self.median, quantile(0.9))
    return median > fast + fast / 2 || slow > 3 * median
  }

  /// `counts` as a row of bars, each as high as its share of the highest.
  static func bars(_ counts: [Int]) -> String {
    let heights: [Character] = [
      "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}", "\u{2587}",
      "\u{2588}",
    ]
    let most = max(1, counts.max() ?? 1)
    return String(
      counts.map { count in
        count <= 0 ? "." : heights[min(7, (count * 8 - 1) / most)]
      })
  }
}
