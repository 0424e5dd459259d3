/// One write of a round: what is written where, and whether a flush follows.
struct Work {
  static let blockSize = 4096
  static let blocks: UInt64 = 4096

  /// Which block is written.
  let block: UInt64
  /// What all of its eight-byte words become.
  let value: UInt64
  /// Whether a flush follows.
  let isFlushed: Bool

  init(round: UInt64, number: UInt64) {
    // splitmix64
    var word = (round << 32 | number) &* 0x9E37_79B9_7F4A_7C15
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    word ^= word >> 31
    block = word % Self.blocks
    value = word >> 20 & 7 == 0 ? 0 : round << 32 | number + 1
    isFlushed = word >> 24 & 15 == 0
  }
}
