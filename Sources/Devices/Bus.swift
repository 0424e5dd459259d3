/// An address space with devices in it: the port bus or the MMIO bus.
///
/// It is filled before the first VCPU runs and never changes after, so look-up takes no lock.
package struct Bus: Sendable {
  /// A device's place on the bus.
  package struct Slot: Sendable {
    /// The first address of the device.
    package let start: UInt64
    /// The last.
    package let last: UInt64
    /// The device.
    package let device: any Device
    let widestAccess: Int
  }

  /// Two devices that want the same addresses.
  package struct Overlap: Error, Sendable, CustomStringConvertible {
    /// The device that was there.
    package let present: StaticString
    /// The device that was to be added.
    package let added: StaticString

    /// Names both.
    package var description: String { "\(added) would overlap \(present) on the bus" }
  }

  /// The devices by rising address.
  package private(set) var slots: [Slot] = []

  /// A bus without devices: reads give all ones.
  package init() {}

  /// Puts `device` at `count` addresses from `start` on.
  package mutating func add(_ device: any Device, at start: UInt64, count: UInt64) throws(Overlap) {
    let last = start + (count - 1)
    for slot in slots where slot.start <= last && start <= slot.last {
      throw Overlap(present: slot.device.name, added: device.name)
    }
    let slot = Slot(start: start, last: last, device: device, widestAccess: device.widestAccess)
    slots.insert(slot, at: slots.firstIndex { $0.start > start } ?? slots.count)
  }

  /// The index in `slots` of the device at `address`, or -1.
  @inlinable
  package func index(of address: UInt64) -> Int {
    // An index loop: for-in over the slots would retain each device.
    var low = 0
    var high = slots.count
    while low < high {
      let middle = (low &+ high) >> 1
      if slots[middle].last < address { low = middle &+ 1 } else { high = middle }
    }
    return low < slots.count && slots[low].start <= address ? low : -1
  }

  /// Reads `width` bytes at `address`. Where nobody answers, bits are ones.
  package func read(_ address: UInt64, width: Int) -> UInt64 {
    let index = index(of: address)
    if index >= 0 && takesWhole(index, address, width) {
      return slots[index].device.read(offset: address &- slots[index].start, width: width)
    }
    return readInPieces(address, width, index)
  }

  /// Writes `width` bytes at `address`. What nobody takes is dropped.
  package func write(_ address: UInt64, width: Int, value: UInt64) {
    let index = index(of: address)
    if index >= 0 && takesWhole(index, address, width) {
      slots[index].device.write(
        offset: address &- slots[index].start, width: width, value: value)
    } else {
      writeInPieces(address, width, value, index)
    }
  }

  /// Fills `bytes` by one repeated read of the one address `address`, in order, with accesses of
  /// `width` bytes.
  package func read(_ address: UInt64, width: Int, into bytes: inout MutableSpan<UInt8>) {
    let index = index(of: address)
    if index >= 0 && takesWhole(index, address, width) {
      slots[index].device.read(
        offset: address &- slots[index].start, width: width, into: &bytes)
      return
    }
    var position = 0
    while position &+ width <= bytes.count {
      let value = readInPieces(address, width, index)
      for byte in 0..<width {
        bytes[position] = UInt8(truncatingIfNeeded: value >> UInt64(byte * 8))
        position &+= 1
      }
    }
  }

  /// Writes the bytes of one repeated write to the one address `address`, in order, with accesses of
  /// `width` bytes.
  package func write(_ address: UInt64, width: Int, bytes: Span<UInt8>) {
    let index = index(of: address)
    if index >= 0 && takesWhole(index, address, width) {
      slots[index].device.write(
        offset: address &- slots[index].start, width: width, bytes: bytes)
      return
    }
    var position = 0
    while position &+ width <= bytes.count {
      var value: UInt64 = 0
      for byte in 0..<width { value |= UInt64(bytes[position &+ byte]) << UInt64(byte * 8) }
      writeInPieces(address, width, value, index)
      position &+= width
    }
  }

  /// The name of the device that answers at `address`; nil where nobody answers.
  package func deviceName(at address: UInt64) -> StaticString? {
    let index = index(of: address)
    return index >= 0 ? slots[index].device.name(at: address &- slots[index].start) : nil
  }

  private func takesWhole(_ index: Int, _ address: UInt64, _ width: Int) -> Bool {
    width <= slots[index].widestAccess && UInt64(width &- 1) <= slots[index].last &- address
  }

  // Halves until a device takes the pieces whole, or each is a byte.
  private func readInPieces(_ address: UInt64, _ width: Int, _ index: Int) -> UInt64 {
    guard width > 1 else { return 0xFF }
    let half = width / 2
    let low = read(address, width: half)
    let high = read(address &+ UInt64(half), width: half)
    return low | high << UInt64(half * 8)
  }

  private func writeInPieces(_ address: UInt64, _ width: Int, _ value: UInt64, _ index: Int) {
    guard width > 1 else { return }
    let half = width / 2
    write(address, width: half, value: value & (1 << UInt64(half * 8) - 1))
    write(address &+ UInt64(half), width: half, value: value >> UInt64(half * 8))
  }
}
