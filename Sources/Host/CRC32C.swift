import CLinux

/// The checksum of iSCSI and ext4 (RFC 3720, 12.1): polynomial 0x1EDC6F41, bits reflected.
package enum CRC32C {
  private static let hasInstruction = clinux_has_crc32() != 0
  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { value, _ in
      value & 1 != 0 ? value >> 1 ^ 0x82F6_3B78 : value >> 1
    }
  }

  private static let piece = 64 << 10
  private static let zeroPiece = checksum(of: [UInt8](repeating: 0, count: piece).span)

  /// That of so many zeros.
  package static func checksum(zeros count: Int) -> UInt32 {
    count == piece ? zeroPiece : checksum(of: [UInt8](repeating: 0, count: count).span)
  }

  /// That of `bytes`.
  package static func checksum(of bytes: Span<UInt8>) -> UInt32 {
    guard hasInstruction else { return byTable(bytes) }
    // Only the buffer's bytes are read.
    return unsafe bytes.withUnsafeBufferPointer {
      unsafe ~clinux_crc32(.max, $0.baseAddress, $0.count)
    }
  }

  /// The same without the processor's instruction.
  package static func byTable(_ bytes: Span<UInt8>) -> UInt32 {
    var value = UInt32.max
    for index in bytes.indices {
      value = table[Int(UInt8(truncatingIfNeeded: value) ^ bytes[index])] ^ value >> 8
    }
    return ~value
  }
}
