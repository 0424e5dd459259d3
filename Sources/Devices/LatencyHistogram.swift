/// How many things took how long.
public struct LatencyHistogram: Sendable {
  // Eight buckets for each power of 2, so that a bucket's end is at most 1/8 above what is in it.
  private var buckets: [UInt64] = []
  private static let count = 8 * 62

  /// How many there were.
  public private(set) var total: UInt64 = 0
  /// The longest of them in nanoseconds; nil if there are none.
  public private(set) var longest: UInt64?

  /// Nothing so far.
  public init() {}

  /// Adds one that took so long.
  public mutating func add(_ nanoseconds: UInt64) {
    if buckets.isEmpty { buckets = [UInt64](repeating: 0, count: Self.count) }
    buckets[Self.bucket(of: nanoseconds)] &+= 1
    total &+= 1
    longest = max(longest ?? 0, nanoseconds)
  }

  /// The time in nanoseconds that `percent` of all took no longer than, at most an eighth too long;
  /// nil if there are none.
  public func percentile(_ percent: UInt64) -> UInt64? {
    guard let longest else { return nil }
    var seen: UInt64 = 0
    for (bucket, count) in buckets.enumerated() {
      seen &+= count
      if seen &* 100 >= total &* percent { return min(Self.end(of: bucket), longest) }
    }
    return longest
  }

  /// Below 8 each number has its bucket; beyond, the three bits after the first choose one.
  private static func bucket(of value: UInt64) -> Int {
    guard value >= 8 else { return Int(value) }
    let shift = 60 - value.leadingZeroBitCount
    return (shift + 1) << 3 | Int(value >> UInt64(shift) & 7)
  }

  /// The largest number of a bucket.
  private static func end(of bucket: Int) -> UInt64 {
    guard bucket >= 8 else { return UInt64(bucket) }
    let shift = UInt64(bucket >> 3 - 1)
    return (UInt64(bucket & 7 | 8) << shift) + (1 << shift - 1)
  }
}
