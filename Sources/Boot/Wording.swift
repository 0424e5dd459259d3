/// A number as messages show it: `0x10000`.
func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

/// A range of addresses as messages show it, both ends inside: `0x1000 to 0x6fff`.
func span(_ range: Range<UInt64>) -> String {
  range.isEmpty ? hex(range.lowerBound) : "\(hex(range.lowerBound)) to \(hex(range.upperBound - 1))"
}

/// A size in the largest unit that divides it, as options take it: `128M`.
func size(_ bytes: UInt64) -> String {
  for (unit, shift) in [("G", 30), ("M", 20), ("K", 10)]
  where bytes >= 1 << shift && bytes % (1 << shift) == 0 {
    return "\(bytes >> shift)\(unit)"
  }
  return "\(bytes) bytes"
}
