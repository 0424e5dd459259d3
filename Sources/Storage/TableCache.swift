/// Slices of an image's tables in memory: no more of them than fit, changed ones kept until they are
/// written back.
struct TableCache {
  private struct Slot {
    var offset: UInt64
    var entries: [UInt64]
    // The entries that were changed since the slice was read or written.
    var dirty: Range<Int>?
    var isUsed = true
  }

  /// How many bits an entry has: 1 to 64, a power of two.
  let entryBits: Int
  /// How many entries a slice has.
  let sliceCount: Int
  private let capacity: Int
  private var slots: [Slot] = []
  private var places: [UInt64: Int] = [:]
  private var hand = 0
  private(set) var dirtyCount = 0

  /// A cache of at most `byteLimit` bytes in memory for tables of `tableBytes` each.
  init(entryBits: Int, tableBytes: Int, byteLimit: Int) {
    self.entryBits = entryBits
    sliceCount = min(tableBytes * 8 / entryBits, 512)
    capacity = max(4, byteLimit / (sliceCount * 8))
  }

  var sliceBytes: Int { sliceCount * entryBits / 8 }

  /// The slot with the slice at `offset`; nil if there is no room until the changed ones are written
  /// back.
  mutating func slot(at offset: UInt64, in file: any DiskFile) throws(StorageError) -> Int? {
    if let found = places[offset] {
      slots[found].isUsed = true
      return found
    }
    guard let place = room() else { return nil }
    let entries = decode(try file.bytes(at: offset, count: sliceBytes))
    put(Slot(offset: offset, entries: entries), at: place)
    return place
  }

  /// Forgets the slices of a table, changed or not, such as when its cluster becomes something else.
  mutating func forget(_ offset: UInt64, count: UInt64) {
    for place in stride(from: offset, to: offset + count, by: sliceBytes) {
      guard let index = places.removeValue(forKey: place) else { continue }
      if slots[index].dirty != nil { dirtyCount -= 1 }
      slots[index].dirty = nil
      slots[index].isUsed = false
      slots[index].offset = .max
    }
  }

  func entry(_ slot: Int, _ index: Int) -> UInt64 { slots[slot].entries[index] }

  mutating func set(_ slot: Int, _ index: Int, _ value: UInt64) {
    slots[slot].entries[index] = value
    if let dirty = slots[slot].dirty {
      slots[slot].dirty = min(dirty.lowerBound, index)..<max(dirty.upperBound, index + 1)
    } else {
      slots[slot].dirty = index..<index + 1
      dirtyCount += 1
    }
  }

  /// The first entry from `index` on that is zero, in a slot.
  func firstZero(_ slot: Int, from index: Int) -> Int? {
    slots[slot].entries[index...].firstIndex(of: 0)
  }

  /// Writes all changed entries.
  mutating func writeBack(to file: any DiskFile) throws(StorageError) {
    guard dirtyCount > 0 else { return }
    for index in slots.indices {
      guard let dirty = slots[index].dirty else { continue }
      // Whole bytes, for entries that are smaller.
      let perByte = max(1, 8 / entryBits)
      let first = dirty.lowerBound / perByte * perByte
      let end = min((dirty.upperBound + perByte - 1) / perByte * perByte, sliceCount)
      let bytes = encode(slots[index].entries[first..<end])
      try file.write(bytes.span, at: slots[index].offset + UInt64(first * entryBits / 8))
      slots[index].dirty = nil
      dirtyCount -= 1
    }
  }

  // A free slot, or that of an unchanged slice which nobody has asked for lately.
  private mutating func room() -> Int? {
    if slots.count < capacity { return slots.count }
    guard dirtyCount < slots.count else { return nil }
    while true {
      hand = (hand + 1) % slots.count
      if slots[hand].dirty != nil { continue }
      if !slots[hand].isUsed { return hand }
      slots[hand].isUsed = false
    }
  }

  private mutating func put(_ slot: Slot, at place: Int) {
    if place == slots.count {
      slots.append(slot)
    } else {
      places.removeValue(forKey: slots[place].offset)
      slots[place] = slot
    }
    places[slot.offset] = place
  }

  func decode(_ bytes: [UInt8]) -> [UInt64] { Self.decode(bytes, entryBits) }

  /// The entries in `bytes`: those of several bytes are big-endian, those of a few bits begin in a
  /// byte's low ones. ("Refcount blocks")
  static func decode(_ bytes: [UInt8], _ entryBits: Int) -> [UInt64] {
    var entries: [UInt64] = []
    entries.reserveCapacity(bytes.count * 8 / entryBits)
    if entryBits < 8 {
      let mask = (UInt64(1) << UInt64(entryBits)) - 1
      for byte in bytes {
        for shift in stride(from: 0, to: 8, by: entryBits) {
          entries.append(UInt64(byte) >> UInt64(shift) & mask)
        }
      }
    } else {
      let size = entryBits / 8
      var index = 0
      while index < bytes.count {
        var value: UInt64 = 0
        for byte in index..<index + size { value = value << 8 | UInt64(bytes[byte]) }
        entries.append(value)
        index += size
      }
    }
    return entries
  }

  private func encode(_ entries: ArraySlice<UInt64>) -> [UInt8] {
    Self.encode(entries, entryBits)
  }

  /// The reverse.
  static func encode(_ entries: some Collection<UInt64>, _ entryBits: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(entries.count * entryBits / 8 + 1)
    var pending: UInt64 = 0
    var shift = 0
    for entry in entries {
      if entryBits >= 8 {
        for byte in stride(from: entryBits - 8, through: 0, by: -8) {
          bytes.append(UInt8(truncatingIfNeeded: entry >> UInt64(byte)))
        }
      } else {
        pending |= entry << UInt64(shift)
        shift += entryBits
        if shift == 8 {
          bytes.append(UInt8(truncatingIfNeeded: pending))
          pending = 0
          shift = 0
        }
      }
    }
    return bytes
  }
}
