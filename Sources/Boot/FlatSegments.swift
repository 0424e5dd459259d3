/// The flat segments of protected and long mode, and the GDT that a guest can reload them from.
enum FlatSegments {
  static let code32 = EntryState.Segment(
    selector: 0x08, base: 0, limit: 0xFFFF_FFFF, type: EntryState.Segment.codeType, is32Bit: true)
  static let code64 = EntryState.Segment(
    selector: 0x08, base: 0, limit: 0xFFFF_FFFF, type: EntryState.Segment.codeType, is64Bit: true)
  static let data = EntryState.Segment(
    selector: 0x10, base: 0, limit: 0xFFFF_FFFF, type: EntryState.Segment.dataType, is32Bit: true)

  /// The null descriptor, code, data.
  static let tableSize = 24

  /// The bytes of the GDT for `mode`.
  static func table(for mode: CPUMode) -> [UInt8] {
    let code = mode == .long ? code64 : code32
    return littleEndianBytes([0, code.descriptor, data.descriptor])
  }

  /// The selectors that Linux wants them under: __BOOT_CS and __BOOT_DS (boot.rst, "32-bit Boot
  /// Protocol").
  static let linuxCode: UInt16 = 0x10
  static let linuxData: UInt16 = 0x18

  /// Two null descriptors, code, data.
  static let linuxTableSize = 32

  /// The bytes of the GDT for Linux in `mode`.
  static func linuxTable(for mode: CPUMode) -> [UInt8] {
    let code = mode == .long ? code64 : code32
    return littleEndianBytes([0, 0, code.descriptor, data.descriptor])
  }
}

extension EntryState.Segment {
  /// The segment as an entry of the GDT (Intel SDM vol 3, figure 3-8).
  var descriptor: UInt64 {
    let units = UInt64(isGranular ? limit >> 12 : limit)
    let present = UInt64(1) << 47
    let codeOrData = UInt64(1) << 44
    return units & 0xFFFF | (base & 0xFF_FFFF) << 16 | UInt64(type) << 40 | codeOrData | present
      | (units >> 16 & 0xF) << 48 | (is64Bit ? 1 << 53 : 0) | (is32Bit ? 1 << 54 : 0)
      | (isGranular ? 1 << 55 : 0) | (base >> 24 & 0xFF) << 56
  }
}

/// `words` as memory holds them, each as eight bytes.
func littleEndianBytes(_ words: [UInt64]) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: words.count * 8)
  for index in bytes.indices {
    bytes[index] = UInt8(truncatingIfNeeded: words[index / 8] >> UInt64(index % 8 * 8))
  }
  return bytes
}
