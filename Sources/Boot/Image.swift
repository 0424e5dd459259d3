import Host

/// The bytes of an image and the name that messages call it by.
struct Image {
  let bytes: [UInt8]
  let name: String

  var count: UInt64 { UInt64(bytes.count) }

  /// The little-endian integer at `offset`, or nil where the image ends before its last byte.
  func load<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, as type: T.Type) -> T? {
    let size = T.bitWidth / 8
    guard offset >= 0, size <= bytes.count, offset <= bytes.count - size else { return nil }
    var value: T = 0
    for index in (offset..<offset + size).reversed() { value = value << 8 | T(bytes[index]) }
    return value
  }

  /// Whether `expected` stands at `offset`.
  func has(_ expected: [UInt8], at offset: Int = 0) -> Bool {
    guard offset >= 0, expected.count <= bytes.count, offset <= bytes.count - expected.count else {
      return false
    }
    return bytes[offset..<offset + expected.count].elementsEqual(expected)
  }

  /// The `count` bytes from `offset` on, or nil where the image ends earlier.
  func slice(_ offset: UInt64, count: UInt64) -> ArraySlice<UInt8>? {
    guard offset <= self.count, count <= self.count - offset else { return nil }
    return bytes[Int(offset)..<Int(offset + count)]
  }

  /// An error about the image; `predicate` goes on with the sentence that its name starts.
  func error(_ cause: BootError.Cause, _ predicate: Advice) -> BootError {
    BootError(cause, "\(name) \(predicate)")
  }

  /// An error about what belongs to the image, which `sentence` names.
  func error(_ cause: BootError.Cause, about sentence: Advice) -> BootError {
    BootError(cause, "\(name): \(sentence)")
  }
}
