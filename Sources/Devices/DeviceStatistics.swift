/// What a device did, for `--stats`.
public struct DeviceStatistics: Sendable {
  /// A ring of a virtio device's, or the drive itself.
  public struct Ring: Sendable {
    /// Its number; nil for a drive, which has no rings.
    public let number: Int?
    /// What the specification calls it; empty for a drive.
    public let name: StaticString
    /// What was counted.
    public let statistics: RequestStatistics
  }

  /// A number of the device's own, such as frames that were dropped.
  public struct Counter: Sendable {
    /// What is counted, in words with underscores between them.
    public let name: String
    /// How many; bytes where the name says so.
    public let value: UInt64

    /// Takes both as they are.
    public init(_ name: String, _ value: UInt64) { (self.name, self.value) = (name, value) }
  }

  /// The device's name, and where it is.
  public let label: String
  /// The rings that a driver has set up, by number.
  public let rings: [Ring]
  /// What else there is to tell.
  public let counters: [Counter]

  /// The value of the counter `name`, if there is one.
  public subscript(name: String) -> UInt64? { counters.first { $0.name == name }?.value }
}

/// What a ring or a drive did. nil stands for what it can't have, or what nobody here can know.
public struct RequestStatistics: Sendable {
  /// Requests that are done.
  public internal(set) var requests: UInt64? = 0
  /// Bytes that the guest read: data alone, no headers.
  public internal(set) var bytesRead: UInt64? = 0
  /// Bytes that the guest wrote, the same.
  public internal(set) var bytesWritten: UInt64? = 0
  /// How often the driver's doorbell woke the device.
  public internal(set) var doorbells: UInt64? = 0
  /// How often the driver was interrupted.
  public internal(set) var interrupts: UInt64? = 0
  /// The most requests that were there at once.
  public internal(set) var deepest: Int? = 0
  /// How long they took, from the look that found them to their end; empty unless times were asked
  /// for.
  public internal(set) var latencies = LatencyHistogram()

  /// Nothing so far.
  public init() {}

  /// Of a ring that is served somewhere else.
  static let unknown = {
    var statistics = RequestStatistics()
    (statistics.requests, statistics.bytesRead, statistics.bytesWritten) = (nil, nil, nil)
    (statistics.doorbells, statistics.interrupts, statistics.deepest) = (nil, nil, nil)
    return statistics
  }()

  /// Counts a request.
  mutating func add(_ request: DeviceRequest?) {
    requests? &+= 1
    guard let request else { return }
    switch request.flow {
    case .toGuest: bytesRead? &+= request.bytes
    case .fromGuest: bytesWritten? &+= request.bytes
    case .none: break
    }
  }
}

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
