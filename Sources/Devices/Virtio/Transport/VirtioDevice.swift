/// A virtio device apart from how a driver reaches it: PCI and MMIO are transports in front of it.
///
/// Registers are the VCPUs' threads' business, queues that of one worker thread each or of one for
/// all. Both sides meet in what the device guards itself.
package protocol VirtioDevice: AnyObject, Sendable {
  /// The name that traces and tables show, such as `virtio-block`.
  var name: StaticString { get }
  /// The device type (virtio 1.2, chapter 5).
  var type: UInt16 { get }
  /// The features of its own that it offers; the transport adds the common ones.
  var features: VirtioFeatures { get }
  /// The largest size of each queue, a power of 2.
  var queueSizes: [UInt16] { get }
  /// Whether its work takes long enough for each queue to have a thread of its own.
  var hasOwnThreads: Bool { get }
  /// What it counts itself, for `--stats`; read when nothing is served any more.
  var counters: [DeviceStatistics.Counter] { get }
  /// What queue `index` is to a driver that has agreed to `features`.
  func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole

  /// Who serves the queues instead of `serve(_:)`, if somebody does.
  var remote: (any VirtioRemote)? { get }
  /// Whether it can work with `features`, a set of those it offers: some ask for others.
  func accepts(_ features: VirtioFeatures) -> Bool

  /// The number of a file that gives `queue` a turn each time that something comes to it; nil for
  /// none. It is there for as long as the device.
  func inputDescriptor(queue: Int) -> Int32?

  /// Learns how to ask for its queues' turn and how to say that its configuration changed. Called
  /// once, before anything else.
  func connect(to signals: VirtioSignals)

  /// Reads `width` bytes (1, 2 or 4) of the configuration space at `offset`.
  func readConfiguration(offset: UInt64, width: Int) -> UInt64
  /// Writes `width` bytes there. What the driver may not write is dropped.
  func writeConfiguration(offset: UInt64, width: Int, value: UInt64)

  /// Does what there is to do for `queue`, on its thread: the driver rang, or the queue starts, or
  /// the device woke it. Throws when the driver broke a rule.
  func serve(_ queue: ActiveQueue) throws(RingFault)

  /// Forgets what it has of queue `index`, which is not served any more. Called by any thread.
  func stopped(queue index: Int)

  /// Returns to where it was at first: the driver reset the device, or the machine was reset. No queue
  /// is served. Called by any thread.
  func reset()

  /// Writes what it has of its own that the guest could see, now or later. No queue is served.
  func save(to state: inout StateWriter)
  /// Takes what `save` wrote of a device whose driver has agreed to `features`, or is about to. It has
  /// been reset just now.
  func restore(from state: StateReader, _ features: VirtioFeatures) throws(StateError)
}

extension VirtioDevice {
  /// One thread with all others.
  package var hasOwnThreads: Bool { false }
  /// Nothing.
  package var counters: [DeviceStatistics.Counter] { [] }
  /// Nobody does.
  package var remote: (any VirtioRemote)? { nil }
  /// Any set will do.
  package func accepts(_ features: VirtioFeatures) -> Bool { true }
  /// Its queues wait for drivers alone.
  package func inputDescriptor(queue: Int) -> Int32? { nil }
  /// Asks for nothing.
  package func connect(to signals: VirtioSignals) {}
  /// No configuration space: zeros.
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 { 0 }
  /// Nothing can be written.
  package func writeConfiguration(offset: UInt64, width: Int, value: UInt64) {}
  /// Keeps nothing of a queue.
  package func stopped(queue index: Int) {}
  /// Has nothing to forget.
  package func reset() {}
  /// Has nothing of its own.
  package func save(to state: inout StateWriter) {}
  /// The same.
  package func restore(
    from state: StateReader, _ features: VirtioFeatures
  ) throws(StateError) {}
}

/// What a queue is for.
package struct VirtioQueueRole: Sendable {
  /// What the specification calls it.
  package let name: StaticString
  /// Whether a guest reads data by it.
  package let isRead: Bool
  /// Whether it writes data by it.
  package let isWritten: Bool

  /// A queue that carries data as told.
  package init(_ name: StaticString, isRead: Bool = false, isWritten: Bool = false) {
    self.name = name
    self.isRead = isRead
    self.isWritten = isWritten
  }
}

/// The bytes of a configuration space, for devices whose own never change.
package struct VirtioConfigurationBytes: Sendable {
  private var bytes: [UInt8]

  /// `count` zeros.
  package init(count: Int) { bytes = [UInt8](repeating: 0, count: count) }

  /// Puts `value` at `offset`, little-endian.
  /// Puts `value`, little-endian, at `offset`; it has room there.
  package mutating func set<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    for index in 0..<MemoryLayout<T>.size {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index))
    }
  }

  /// Reads `width` bytes at `offset`; behind the end are zeros.
  /// Answers a read of 1 to 8 bytes; zeros behind the end.
  package func read(_ offset: UInt64, _ width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<UInt64(width) where offset &+ index < UInt64(bytes.count) {
      value |= UInt64(bytes[Int(offset &+ index)]) << (8 * index)
    }
    return value
  }
}
