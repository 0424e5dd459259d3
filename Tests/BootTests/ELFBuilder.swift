/// Builds the bytes of an ELF file, each field as a test says.
struct ELFBuilder {
  struct Segment {
    var type: UInt32 = 1  // PT_LOAD
    var virtual: UInt64 = 0x10_0000
    var physical: UInt64 = 0x10_0000
    var contents: [UInt8] = [0xF4]  // hlt
    var memorySize: UInt64?
    var fileSize: UInt64?
    var offset: UInt64?
  }

  var is64Bit = true
  var dataEncoding: UInt8 = 1  // ELFDATA2LSB
  var type: UInt16 = 2  // ET_EXEC
  var machine: UInt16?
  var entry: UInt64 = 0x10_0000
  var programHeaderSize: UInt16?
  var programHeaderCount: UInt16?
  var programHeaderOffset: UInt64?
  var segments: [Segment] = [Segment()]

  /// ELF header, program headers, contents of the segments.
  var bytes: [UInt8] {
    let contentsStart = UInt64(headerSize) + UInt64(segments.count * entrySize)
    var bytes = header
    var offset = contentsStart
    for segment in segments {
      bytes += programHeader(segment, at: segment.offset ?? offset)
      offset += UInt64(segment.contents.count)
    }
    return bytes + segments.flatMap(\.contents)
  }

  var headerSize: Int { is64Bit ? 64 : 52 }
  var entrySize: Int { is64Bit ? 56 : 32 }

  private var header: [UInt8] {
    // e_ident: magic, class, data encoding, version, padding
    var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, is64Bit ? 2 : 1, dataEncoding, 1]
    bytes += [UInt8](repeating: 0, count: 9)
    bytes += half(type)
    bytes += half(machine ?? (is64Bit ? 62 : 3))
    bytes += word(1)  // e_version
    bytes += address(entry)
    bytes += address(programHeaderOffset ?? UInt64(headerSize))
    bytes += address(0)  // e_shoff
    bytes += word(0)  // e_flags
    bytes += half(UInt16(headerSize))
    bytes += half(programHeaderSize ?? UInt16(entrySize))
    bytes += half(programHeaderCount ?? UInt16(segments.count))
    bytes += half(0) + half(0) + half(0)  // e_shentsize, e_shnum, e_shstrndx
    return bytes
  }

  private func programHeader(_ segment: Segment, at offset: UInt64) -> [UInt8] {
    let flags: UInt32 = 7  // read, write, execute
    let fileSize = segment.fileSize ?? UInt64(segment.contents.count)
    var bytes = word(segment.type)
    if is64Bit { bytes += word(flags) }
    bytes += address(offset) + address(segment.virtual) + address(segment.physical)
    bytes += address(fileSize) + address(segment.memorySize ?? fileSize)
    if !is64Bit { bytes += word(flags) }
    return bytes + address(0x1000)  // p_align
  }

  private func half(_ value: UInt16) -> [UInt8] {
    let bytes = littleEndian(UInt64(value), 2)
    return dataEncoding == 2 ? bytes.reversed() : bytes
  }

  private func word(_ value: UInt32) -> [UInt8] { littleEndian(UInt64(value), 4) }

  private func address(_ value: UInt64) -> [UInt8] { littleEndian(value, is64Bit ? 8 : 4) }
}

/// The low `count` bytes of `value`, the lowest first.
func littleEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
}
