/// Sizes as people write them.
package enum ByteCount {
  private static let units: [(letter: Character, shift: UInt64)] = [
    ("T", 40), ("G", 30), ("M", 20), ("K", 10),
  ]

  /// The bytes that `text` says: a number, and K, M, G or T behind it, each of them 1024 times the one
  /// before, also as KiB, KB, kb. A fraction such as 1.5G is cut to whole pages from M on, below to
  /// whole bytes.
  package static func parse(_ text: String) -> UInt64? {
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    guard let shift = shift(of: text[number.endIndex...]) else { return nil }
    let parts = number.split(separator: ".", omittingEmptySubsequences: false)
    guard let first = parts.first, let whole = UInt64(first), parts.count <= 2 else { return nil }
    guard whole <= UInt64.max >> shift else { return nil }
    guard parts.count == 2 else { return whole << shift }
    guard shift > 0, (1...9).contains(parts[1].count), let fraction = UInt64(parts[1]) else {
      return nil
    }
    let divisor = parts[1].reduce(1 as UInt64) { divisor, _ in divisor * 10 }
    // At most 2^30 times 2^40, in twice the width.
    let product = fraction.multipliedFullWidth(by: 1 << shift)
    let part = divisor.dividingFullWidth((product.high, product.low)).quotient
    let (sum, overflow) = (whole << shift).addingReportingOverflow(part)
    return overflow ? nil : shift >= 20 ? sum & ~4095 : sum
  }

  private static func shift(of unit: Substring) -> UInt64? {
    if unit.isEmpty { return 0 }
    let letters = unit.uppercased()
    return units.first { unit in
      letters == String(unit.letter) || letters == "\(unit.letter)B"
        || letters == "\(unit.letter)IB"
    }?.shift
  }

  /// The shortest text that says just that: `512M`, or a plain number.
  package static func text(_ bytes: UInt64) -> String {
    for unit in units where bytes != 0 && bytes & (1 << unit.shift - 1) == 0 {
      return "\(bytes >> unit.shift)\(unit.letter)"
    }
    return "\(bytes)"
  }
}
