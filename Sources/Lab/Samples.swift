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
}
