/// What a queue did, for `--stats`.
public struct QueueStatistics: Sendable {
  /// Requests that were handed back.
  public internal(set) var requests: UInt64 = 0
  /// Their bytes: all that the driver gave and all that the device wrote, headers too.
  public internal(set) var bytes: UInt64 = 0
  /// How often the driver's doorbell woke the device.
  public internal(set) var doorbells: UInt64 = 0
  /// How often the driver was told that requests are done.
  public internal(set) var interrupts: UInt64 = 0
  /// The most requests that were there at once.
  public internal(set) var deepest = 0
  /// How many requests took how long, from the look that found them to their end: bucket n is for
  /// those below 2^n nanoseconds and not below half of that. All 0 unless times were asked for.
  public internal(set) var latencies = [UInt64](repeating: 0, count: 40)

  /// Nothing so far.
  public init() {}

  /// Adds what another queue did, or the same one in another life.
  public mutating func add(_ other: QueueStatistics) {
    requests &+= other.requests
    bytes &+= other.bytes
    doorbells &+= other.doorbells
    interrupts &+= other.interrupts
    deepest = max(deepest, other.deepest)
    for index in latencies.indices { latencies[index] &+= other.latencies[index] }
  }

  mutating func addLatency(_ nanoseconds: UInt64) {
    latencies[min(UInt64.bitWidth - nanoseconds.leadingZeroBitCount, latencies.count - 1)] &+= 1
  }

  /// The time in nanoseconds that `percent` of all requests took no longer than, as a power of 2;
  /// nil if no times were taken.
  public func latency(percent: UInt64) -> UInt64? {
    let total = latencies.reduce(0, &+)
    guard total > 0 else { return nil }
    var seen: UInt64 = 0
    for (bucket, count) in latencies.enumerated() {
      seen &+= count
      if seen &* 100 >= total &* percent { return 1 << UInt64(bucket) }
    }
    return 1 << UInt64(latencies.count - 1)
  }
}
