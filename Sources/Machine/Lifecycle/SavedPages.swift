/// A set of the pages of a memory file, by their numbers in it.
package struct SavedPages: Sendable, Equatable {
  /// How many pages the file has.
  let pageCount: Int
  /// A bit for each, the lowest first.
  private(set) var bytes: [UInt8]

  /// None of `pageCount` pages.
  init(pageCount: Int) {
    self.pageCount = pageCount
    bytes = [UInt8](repeating: 0, count: Self.byteCount(pageCount))
  }

  /// Those that `bytes` say, which may be anybody's; nil if there are bits for other pages.
  init?(_ bytes: [UInt8], pageCount: Int) {
    guard bytes.count == Self.byteCount(pageCount) else { return nil }
    if pageCount % 8 != 0, let last = bytes.last, last >> UInt8(pageCount % 8) != 0 { return nil }
    (self.bytes, self.pageCount) = (bytes, pageCount)
  }

  static func byteCount(_ pageCount: Int) -> Int { (pageCount + 7) / 8 }

  func contains(_ page: Int) -> Bool { bytes[page >> 3] >> UInt8(page & 7) & 1 != 0 }

  mutating func insert(_ page: Int) { bytes[page >> 3] |= 1 << UInt8(page & 7) }

  /// How many they are.
  package var count: Int { bytes.reduce(0) { $0 + $1.nonzeroBitCount } }
}
