/// A structure as memory holds it: little-endian fields at the offsets that its definition gives.
struct Record {
  private(set) var bytes: [UInt8]

  /// A structure of `count` bytes, all zero.
  init(count: Int) { bytes = [UInt8](repeating: 0, count: count) }

  /// Sets the field at `offset`, all of which is inside.
  mutating func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    for index in 0..<T.bitWidth / 8 {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8))
    }
  }

  /// Copies `contents` to `offset`, where all of them are inside.
  mutating func copy(_ contents: ArraySlice<UInt8>, to offset: Int) {
    bytes.replaceSubrange(offset..<offset + contents.count, with: contents)
  }
}
