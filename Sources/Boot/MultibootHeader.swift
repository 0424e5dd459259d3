/// The header by which an image asks for a Multiboot loader.
enum MultibootHeader {
  /// Multiboot 0.6.96, 3.1: in the first 8192 bytes, aligned to 4, three words with the sum 0.
  static func isPresent(in image: Image) -> Bool {
    isPresent(magic: 0x1BAD_B002, words: 3, alignment: 4, within: 8192, in: image)
  }

  /// Multiboot2 2.0, 3.1: in the first 32768 bytes, aligned to 8, four words with the sum 0.
  static func isPresentVersion2(in image: Image) -> Bool {
    isPresent(magic: 0xE852_50D6, words: 4, alignment: 8, within: 32768, in: image)
  }

  private static func isPresent(
    magic: UInt32, words: Int, alignment: Int, within limit: Int, in image: Image
  ) -> Bool {
    let end = min(limit, image.bytes.count) - words * 4
    for offset in stride(from: 0, through: end, by: alignment)
    where image.load(offset, as: UInt32.self) == magic {
      let header = (0..<words).compactMap { image.load(offset + $0 * 4, as: UInt32.self) }
      if header.reduce(0, &+) == 0 { return true }
    }
    return false
  }
}
