/// One of the writes that the guests disk-virtio and disk-ide make for `x`: its number says all of it,
/// as in guest-asm/include/disk.inc.
struct NumberedWrite {
  static let blockSize = 4096

  /// Its number.
  let number: UInt32
  /// Which block it's about.
  let block: Int
  /// Whether the block becomes zeros.
  let isZeros: Bool

  init(_ number: UInt32, blocks: Int) {
    var hash = number &* 0x9E37_79B1
    hash = (hash ^ hash >> 15) &* 0x85EB_CA77
    hash ^= hash >> 13
    self.number = number
    block = Int((UInt64(hash) * UInt64(blocks)) >> 32)
    isZeros = hash & 0x70 == 0
  }

  /// What is in the block's words after it: 0 for zeros.
  var value: UInt32 { isZeros ? 0 : number }

  /// Which write's value is in a sector of a block, if it's whole; `words` are the sector's.
  static func value(of words: ArraySlice<UInt32>, sector: Int) -> UInt32? {
    let value = words[words.startIndex + 1]
    guard words.dropFirst().allSatisfy({ $0 == value }) else { return nil }
    let first = value == 0 ? 0 : value << 3 | UInt32(sector)
    return words.first == first ? value : nil
  }
}
