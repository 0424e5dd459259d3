import Host
import TestSupport
import Testing

@Suite("CRC-32C", .limited)
struct CRC32CTests {
  @Test("is what RFC 3720 (B.4) and its own definition say, with and without the instruction")
  func values() {
    let known: [([UInt8], UInt32)] = [
      ([], 0), (Array("123456789".utf8), 0xE306_9283),
      ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
      ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43), (Array(0..<32), 0x46DD_794E),
    ]
    for (bytes, checksum) in known {
      #expect(CRC32C.checksum(of: bytes.span) == checksum)
      #expect(CRC32C.byTable(bytes.span) == checksum)
    }
    let long = (0..<70_001).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    #expect(CRC32C.checksum(of: long.span) == CRC32C.byTable(long.span))
    let zeros = [UInt8](repeating: 0, count: 64 << 10)
    #expect(CRC32C.checksum(zeros: zeros.count) == CRC32C.byTable(zeros.span))
  }
}
