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

/// How many bytes went by a device so far.
package struct DeviceTraffic: Sendable {
  /// Those that the guest read.
  package var read: UInt64 = 0
  /// Those that it wrote.
  package var written: UInt64 = 0

  /// So many of each.
  package init(read: UInt64 = 0, written: UInt64 = 0) {
    (self.read, self.written) = (read, written)
  }

  /// The sum of both.
  package static func + (a: Self, b: Self) -> Self {
    Self(read: a.read &+ b.read, written: a.written &+ b.written)
  }
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

  /// Adds what another ring did, or the same one in another life; their times are left out.
  public mutating func add(_ other: RequestStatistics) {
    requests = Self.sum(requests, other.requests)
    bytesRead = Self.sum(bytesRead, other.bytesRead)
    bytesWritten = Self.sum(bytesWritten, other.bytesWritten)
    doorbells = Self.sum(doorbells, other.doorbells)
    interrupts = Self.sum(interrupts, other.interrupts)
    deepest = [deepest, other.deepest].compactMap(\.self).max()
  }

  /// What is known of one of them is known of the sum.
  private static func sum(_ one: UInt64?, _ other: UInt64?) -> UInt64? {
    one == nil && other == nil ? nil : (one ?? 0) &+ (other ?? 0)
  }

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
