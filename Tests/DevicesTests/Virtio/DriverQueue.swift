// swift-format-ignore-file: NeverUseForceTry
// Memory that isn't there is the test's own mistake.

import Devices
import Memory
import Synchronization

/// The driver's side of a split virtqueue, as little as a driver needs. It lays its ring out from
/// `base` on, and tests may spoil any of it.
final class DriverQueue: @unchecked Sendable {
  // Sound as Sendable: each test uses one from one thread at a time.

  struct Buffer {
    var address: UInt64
    var count: UInt32
    var isWritten = false
  }

  let memory: GuestMemory
  let size: UInt16
  let addresses: VirtQueue.Addresses
  private(set) var nextAvailable: UInt16
  private(set) var nextUsed: UInt16
  private var nextFree: UInt16 = 0

  static let flagNext: UInt16 = 1
  static let flagWrite: UInt16 = 2
  static let flagIndirect: UInt16 = 4

  init(_ memory: GuestMemory, size: UInt16, at base: UInt64, start: UInt16 = 0) {
    self.memory = memory
    self.size = size
    let count = UInt64(size)
    addresses = .init(
      descriptors: base, available: base + 16 * count, used: (base + 18 * count + 6 + 15) & ~15)
    (nextAvailable, nextUsed) = (start, start)
    put(start, addresses.available + 2)
    put(start, addresses.used + 2)
  }

  /// Goes on where `other` is, which has the same place in another memory.
  init(resuming other: DriverQueue, in memory: GuestMemory) {
    self.memory = memory
    (size, addresses) = (other.size, other.addresses)
    (nextAvailable, nextUsed, nextFree) = (other.nextAvailable, other.nextUsed, other.nextFree)
  }

  // MARK: Memory

  func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ address: UInt64) {
    try! memory.view(at: GuestAddress(address), count: UInt64(T.bitWidth / 8)).store(value, 0)
  }

  func get<T: FixedWidthInteger & BitwiseCopyable>(_ address: UInt64, as type: T.Type) -> T {
    try! memory.view(at: GuestAddress(address), count: UInt64(T.bitWidth / 8)).load(0, as: type)
  }

  func bytes(_ count: Int, at address: UInt64) -> [UInt8] {
    try! memory.read(count, at: GuestAddress(address))
  }

  func write(_ bytes: [UInt8], at address: UInt64) {
    try! memory.write(bytes.span, at: GuestAddress(address))
  }

  // MARK: Descriptors

  func setDescriptor(
    _ index: UInt16, address: UInt64, count: UInt32, flags: UInt16, next: UInt16 = 0,
    table: UInt64? = nil
  ) {
    let place = (table ?? addresses.descriptors) + 16 * UInt64(index)
    put(address, place)
    put(count, place + 8)
    put(flags, place + 12)
    put(next, place + 14)
  }

  /// Makes one chain of `buffers` available and returns its head. Descriptors are taken in turn.
  @discardableResult
  func add(_ buffers: [Buffer]) -> UInt16 {
    let head = nextFree
    for (position, buffer) in buffers.enumerated() {
      let isLast = position == buffers.count - 1
      let next = (nextFree + 1) % size
      setDescriptor(
        nextFree, address: buffer.address, count: buffer.count,
        flags: (buffer.isWritten ? Self.flagWrite : 0) | (isLast ? 0 : Self.flagNext), next: next)
      nextFree = next
    }
    offer(head)
    return head
  }

  /// The same through an indirect table at `table`.
  @discardableResult
  func addIndirect(_ buffers: [Buffer], table: UInt64) -> UInt16 {
    for (position, buffer) in buffers.enumerated() {
      let isLast = position == buffers.count - 1
      setDescriptor(
        UInt16(position), address: buffer.address, count: buffer.count,
        flags: (buffer.isWritten ? Self.flagWrite : 0) | (isLast ? 0 : Self.flagNext),
        next: UInt16(position + 1), table: table)
    }
    let head = nextFree
    setDescriptor(
      head, address: table, count: UInt32(16 * buffers.count), flags: Self.flagIndirect)
    nextFree = (nextFree + 1) % size
    offer(head)
    return head
  }

  /// Makes the chain that starts with `head` available.
  func offer(_ head: UInt16) {
    put(head, addresses.available + 4 + 2 * UInt64(nextAvailable & (size - 1)))
    nextAvailable &+= 1
    try! memory.view(at: GuestAddress(addresses.available), count: 4)
      .storeReleasing(nextAvailable, 2)
  }

  // MARK: Used

  var usedIndex: UInt16 {
    try! memory.view(at: GuestAddress(addresses.used), count: 4).loadAcquiring(2)
  }

  /// The next request that came back: its head and how many bytes were written.
  func takeUsed() -> (head: UInt32, written: UInt32)? {
    guard usedIndex != nextUsed else { return nil }
    let slot = addresses.used + 4 + 8 * UInt64(nextUsed & (size - 1))
    nextUsed &+= 1
    return (get(slot, as: UInt32.self), get(slot + 4, as: UInt32.self))
  }

  // MARK: Notifications

  /// With an event index: from which used index on the driver wants to hear.
  func setUsedEvent(_ index: UInt16) { put(index, addresses.available + 4 + 2 * UInt64(size)) }
  /// Without: whether it wants to hear at all.
  func setNoInterrupt(_ isSet: Bool) { put(isSet ? 1 : 0 as UInt16, addresses.available) }
  var availableEvent: UInt16 { self.get(addresses.used + 4 + 8 * UInt64(size), as: UInt16.self) }
  var isDoorbellSilenced: Bool { self.get(addresses.used, as: UInt16.self) & 1 != 0 }
}
