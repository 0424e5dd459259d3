/// The page tables of long mode: the first 4 GiB, each address to itself, in pages of 2 MiB.
///
/// One PML4, one page-directory-pointer table and four page directories, one after the other
/// (Intel SDM vol 3, figure 4-9).
enum PageTables {
  static let tableSize: UInt64 = 4096
  static let count: UInt64 = 6
  /// How much they map, in bytes from 0.
  static let reach: UInt64 = 4 << 30

  /// Bits of an entry (SDM vol 3, tables 4-15, 4-17 and 4-18). The user bit stays clear: the guest
  /// starts in ring 0, and may so turn on SMEP and SMAP without losing its footing.
  private static let present: UInt64 = 1 << 0
  private static let writable: UInt64 = 1 << 1
  private static let largePage: UInt64 = 1 << 7

  /// The bytes of all six tables for their place at `start`.
  static func bytes(at start: UInt64) -> [UInt8] {
    let entries = Int(tableSize / 8)
    var words = [UInt64](repeating: 0, count: Int(count) * entries)
    words[0] = start + tableSize | present | writable
    for directory in 0..<4 {
      words[entries + directory] = start + UInt64(2 + directory) * tableSize | present | writable
    }
    for page in 0..<4 * entries {
      words[2 * entries + page] = UInt64(page) << 21 | present | writable | largePage
    }
    return littleEndianBytes(words)
  }
}
