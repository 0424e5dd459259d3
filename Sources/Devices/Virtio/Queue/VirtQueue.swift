import Memory
import Synchronization

/// The device's side of a split virtqueue (virtio 1.2, 2.7): takes requests that the driver made
/// available, and hands them back used.
///
/// Everything in it is the driver's to spoil, so each value is loaded once, checked, then used. It
/// belongs to one thread at a time, and needs nothing but memory: a back end in another process has
/// the same.
package final class VirtQueue {
  /// Where the three parts are, in guest-physical addresses.
  package struct Addresses: Equatable, Sendable {
    /// The descriptor table, 16 bytes for each descriptor.
    package var descriptors: UInt64 = 0
    /// The available ring, which the driver writes.
    package var available: UInt64 = 0
    /// The used ring, which the device writes.
    package var used: UInt64 = 0

    /// All at 0.
    package init() {}

    /// Takes the three as they are.
    package init(descriptors: UInt64, available: UInt64, used: UInt64) {
      self.descriptors = descriptors
      self.available = available
      self.used = used
    }
  }

  /// Where a queue goes on while nothing is in flight: the rings' own indices.
  package struct Position: Equatable, Sendable {
    /// Which request is taken next.
    package var available: UInt16 = 0
    /// Which one is handed back next.
    package var used: UInt16 = 0

    /// Both at `start`.
    package init(_ start: UInt16 = 0) { (available, used) = (start, start) }
  }

  /// The largest size that a split queue can have (2.7).
  package static let largestSize: UInt16 = 32768

  /// The queue's number, for messages.
  package let index: Int
  /// How many descriptors it has: a power of 2.
  package let size: UInt16

  private let walk: DescriptorWalk
  private let available: MemoryView
  private let used: MemoryView
  private let hasEventIndex: Bool
  // The rings' own indices count on past the size, and wrap at 2^16.
  private var nextAvailable: UInt16
  private var knownAvailable: UInt16
  private var nextUsed: UInt16
  private var toldUsed: UInt16

  /// The queue at `addresses`, as the driver of a device with these negotiated `features` set it up;
  /// `start` is where it goes on: at 0, unless somebody else had the queue before.
  package init(
    index: Int, size: UInt16, addresses: Addresses, features: VirtioFeatures, memory: GuestMemory,
    start: Position = Position()
  ) throws(RingFault) {
    guard size > 0, size <= Self.largestSize, size & (size - 1) == 0 else {
      throw RingFault(queue: index, .size(size))
    }
    func part(_ address: UInt64, _ count: UInt64, alignment: UInt64) throws(RingFault) -> MemoryView
    {
      guard address % alignment == 0 else { throw RingFault(queue: index, .misaligned(address)) }
      do {
        return try memory.keptView(at: GuestAddress(address), count: count)
      } catch { throw RingFault(queue: index, .ringOutsideMemory(address)) }
    }
    // Sizes and alignments: 2.7. Both rings end in the other side's event index.
    let count = UInt64(size)
    let table = try part(addresses.descriptors, 16 * count, alignment: 16)
    available = try part(addresses.available, 6 + 2 * count, alignment: 2)
    used = try part(addresses.used, 6 + 8 * count, alignment: 4)
    walk = DescriptorWalk(
      queue: index, table: table, memory: memory, allowsIndirect: features.contains(.indirect))
    hasEventIndex = features.contains(.eventIndex)
    self.index = index
    self.size = size
    (nextAvailable, knownAvailable) = (start.available, start.available)
    (nextUsed, toldUsed) = (start.used, start.used)
  }

  /// How many requests the driver waits for, as far as is known.
  package var depth: Int { Int(knownAvailable &- nextUsed) }

  /// Where a successor goes on. A device hands requests back in their order, so one that was taken and
  /// not handed back is still in the ring, and is taken again.
  package var position: Position { Position(nextUsed) }

  /// Takes the next request into `chain`; false if there is none.
  package func next(_ chain: inout DescriptorChain) throws(RingFault) -> Bool {
    if nextAvailable == knownAvailable {
      let index = available.loadAcquiring(2)
      // Whatever is not yet used counts too: no driver can have more than `size` of them.
      guard index &- nextUsed <= size, index &- nextAvailable <= size else {
        throw fault(.availableIndex(index, next: nextAvailable))
      }
      knownAvailable = index
      guard index != nextAvailable else { return false }
    }
    let slot = Int(nextAvailable & (size - 1))
    let head = available.load(4 + 2 * slot, as: UInt16.self)
    nextAvailable &+= 1
    try walk.collect(head, into: &chain)
    return true
  }

  /// Hands the request back that starts with descriptor `head`, of whose writable bytes the first
  /// `written` were written. The driver may see it at once.
  package func complete(_ head: UInt16, written: UInt32) {
    stage(head, written: written)
    publish()
  }

  /// The same, but the driver sees it with the next `publish()`.
  package func stage(_ head: UInt16, written: UInt32) {
    let slot = 4 + 8 * Int(nextUsed & (size - 1))
    used.store(UInt32(head), slot)
    used.store(written, slot + 4)
    nextUsed &+= 1
  }

  /// Shows the driver all that was staged, at once.
  package func publish() { used.storeReleasing(nextUsed, 2) }

  /// Whether the driver wants an interrupt for what was handed back since the last call (2.7.7.1).
  package func takeInterruptDecision() -> Bool {
    let before = toldUsed
    guard nextUsed != before else { return false }
    toldUsed = nextUsed
    // What was stored must be seen before the driver's wish is read: it looks once more after it
    // has changed that.
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    if hasEventIndex {
      let event = available.load(4 + 2 * Int(size), as: UInt16.self)
      return nextUsed &- event &- 1 < nextUsed &- before
    }
    return available.load(0, as: UInt16.self) & 1 == 0  // VIRTQ_AVAIL_F_NO_INTERRUPT
  }

  /// Tells the driver that no doorbell is needed: the queue is being emptied. With an event index
  /// the one of the last `awaitDoorbell()` lies behind and does the same.
  package func silenceDoorbell() {
    if !hasEventIndex { used.store(UInt16(1), 0) }  // VIRTQ_USED_F_NO_NOTIFY
  }

  /// Asks the driver for a doorbell with its next request, and returns whether one has come already,
  /// for which there may be no doorbell (2.7.9, 2.7.10).
  package func awaitDoorbell() -> Bool {
    if hasEventIndex {
      used.store(nextAvailable, 4 + 8 * Int(size))
    } else {
      used.store(UInt16(0), 0)
    }
    atomicMemoryFence(ordering: .sequentiallyConsistent)
    return available.loadAcquiring(2) != nextAvailable
  }

  private func fault(_ cause: RingFault.Cause) -> RingFault { RingFault(queue: index, cause) }
}
