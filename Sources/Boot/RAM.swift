import Memory

/// Where a guest with so much RAM has it: from 0 up to the hole, and above 4 GiB.
struct RAM {
  let size: UInt64

  private var low: Range<UInt64> { 0..<min(size, GuestMemory.holeStart) }
  private var high: Range<UInt64> {
    GuestMemory.holeEnd..<GuestMemory.holeEnd + (size - low.upperBound)
  }

  var ranges: [Range<UInt64>] { high.isEmpty ? [low] : [low, high] }

  func contains(_ range: Range<UInt64>) -> Bool {
    let part = range.lowerBound < GuestMemory.holeEnd ? low : high
    return range.lowerBound >= part.lowerBound && range.upperBound <= part.upperBound
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
