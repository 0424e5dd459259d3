import TestSupport
import Testing

@testable import ACPI

@Suite(.limited) struct AMLTests {
  @Test func `integers take the shortest form`() {
    #expect(AML.integer(0).bytes == [0x00])
    #expect(AML.integer(1).bytes == [0x01])
    #expect(AML.integer(0xFF).bytes == [0x0A, 0xFF])
    #expect(AML.integer(0x100).bytes == [0x0B, 0x00, 0x01])
    #expect(AML.integer(0x1_0000).bytes == [0x0C, 0, 0, 1, 0])
    #expect(AML.integer(1 << 32).bytes == [0x0E, 0, 0, 0, 0, 1, 0, 0, 0])
  }

  @Test func `an EISA ID is packed into 32 bits, most significant byte first`() {
    // The example of PNP0A03 is in every DSDT: 0x030AD041.
    #expect(AML.eisaID("PNP0A03").bytes == [0x0C, 0x41, 0xD0, 0x0A, 0x03])
    #expect(AML.eisaID("ABC09AF").bytes == [0x0C, 0x04, 0x43, 0x09, 0xAF])
    #expect(AML.eisaID("PNP0B00").bytes == [0x0C, 0x41, 0xD0, 0x0B, 0x00])
  }

  // In a buffer the bytes' count comes before them: 2 bytes up to 255, 3 above.
  @Test(arguments: [
    (60, [0x3F] as [UInt8]), (61, [0x41, 0x04]), (0xFFF - 5, [0x4F, 0xFF]),
    (0x1000 - 5, [0x81, 0x00, 0x01]),
  ])
  func `a package's length counts itself`(count: Int, length: [UInt8]) {
    let buffer = AML.buffer([UInt8](repeating: 0, count: count)).bytes
    #expect(Array(buffer[1..<1 + length.count]) == length)
  }

  @Test func `names are filled up to four characters`() {
    #expect(AML.name("_S5", .integer(0)).bytes == [0x08] + "_S5_".utf8 + [0x00])
    #expect(AML.scope("\\_SB", []).bytes == [0x10, 0x06] + "\\_SB_".utf8)
    #expect(AML.device("RTC", []).bytes == [0x5B, 0x82, 0x05] + "RTC_".utf8)
    #expect(
      AML.method("_E", 5, digits: 2, [.notify("\\_SB.VGEN", .integer(0x80))]).bytes
        == [0x14, 0x13] + "_E05".utf8 + [0, 0x86, 0x5C, 0x2E] + "_SB_VGEN".utf8 + [0x0A, 0x80])
    #expect(AML.device("C", 0x3AF, digits: 3, []).bytes == [0x5B, 0x82, 0x05] + "C3AF".utf8)
  }

  @Test func `resources end in an end tag`() {
    let template = ResourceTemplate().ports(0x3F8, count: 8).interrupt(4)
      .memory(0xD000_0000, count: 0x1000)
    #expect(
      template.term.bytes == [
        0x11, 0x1C, 0x0A, 0x19, 0x47, 1, 0xF8, 3, 0xF8, 3, 0, 8, 0x22, 0x10, 0, 0x86, 9, 0, 1,
        0, 0, 0, 0xD0, 0, 0x10, 0, 0, 0x79, 0,
      ])
  }
}
