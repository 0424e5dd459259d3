// How tables are put together, byte by byte.
extension [UInt8] {
  /// Appends `value`, least significant byte first.
  mutating func append<T: FixedWidthInteger>(littleEndian value: T) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      append(UInt8(truncatingIfNeeded: value >> T(shift)))
    }
  }

  /// Replaces the bytes at `offset` by those of `value`, least significant first.
  mutating func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    for index in 0..<T.bitWidth / 8 {
      self[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8))
    }
  }

  /// Appends exactly `count` characters of `text`, with blanks behind a shorter one.
  mutating func append(_ text: String, count: Int, padding: UInt8 = 0x20) {
    let start = self.count
    append(contentsOf: text.utf8.prefix(count))
    while self.count < start + count { append(padding) }
  }

  /// Appends zeros up to a multiple of `alignment`.
  mutating func pad(to alignment: Int) {
    while count % alignment != 0 { append(0) }
  }

  /// Makes the sum of the bytes in `range` zero by the byte at `offset`, which is in it.
  mutating func setChecksum(at offset: Int, over range: Range<Int>) {
    self[offset] = 0
    self[offset] = 0 &- self[range].reduce(0, &+)
  }
}
