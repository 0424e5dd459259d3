import Memory

/// Where a guest with so much RAM has it: from 0 up to the hole, and above 4 GiB.
struct RAM {
  let size: UInt64

  var ranges: [Range<UInt64>] {
    let low = min(size, GuestMemory.holeStart)
    guard size > low else { return [0..<low] }
    return [0..<low, GuestMemory.holeEnd..<GuestMemory.holeEnd + (size - low)]
  }

  func contains(_ range: Range<UInt64>) -> Bool {
    ranges.contains { range.lowerBound >= $0.lowerBound && range.upperBound <= $0.upperBound }
  }

  /// The least `--memory` that holds `range`, in whole MiB (below 1 MiB in pages); nil if none does.
  static func size(holding range: Range<UInt64>) -> UInt64? {
    var size = range.upperBound
    if range.lowerBound >= GuestMemory.holeEnd {
      size -= GuestMemory.holeEnd - GuestMemory.holeStart
    } else if size > GuestMemory.holeStart {
      return nil
    }
    guard size <= GuestMemory.largestSize else { return nil }
    let unit = size > 1 << 20 ? 1 << 20 : GuestMemory.pageSize
    return (size + unit - 1) / unit * unit
  }
}
