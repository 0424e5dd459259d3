import Memory
import TestSupport
import Testing

@testable import ACPI

/// Carries the commands out as firmware does.
private struct Firmware {
  struct Trouble: Error { let text: String }

  var files: [String: [UInt8]]
  /// Where each file was put.
  private(set) var places: [String: UInt64] = [:]
  /// What each is to be aligned to, and in which zone.
  private(set) var wishes: [String: (alignment: UInt64, zone: UInt8)] = [:]

  init(_ files: [TableLoader.File]) {
    self.files = Dictionary(uniqueKeysWithValues: files.map { ($0.name, $0.bytes) })
  }

  mutating func load(_ places: [String: UInt64]) throws {
    let script = try #require(files["etc/table-loader"])
    try #require(script.count % 128 == 0)
    for start in stride(from: 0, to: script.count, by: 128) {
      let entry = Array(script[start..<start + 128])
      let file = text(entry, 4)
      switch number(entry, 0, 4) {
      case 1:
        wishes[file] = (number(entry, 60, 4), entry[64])
        self.places[file] = places[file]
      case 2:
        // The address of the other file is known only once it has one.
        let target = try #require(self.places[text(entry, 60)])
        try change(file, Int(number(entry, 116, 4)), Int(entry[120])) { $0 &+ target }
      case 3:
        let (from, count) = (Int(number(entry, 64, 4)), Int(number(entry, 68, 4)))
        let sum = try #require(files[file])[from..<from + count].reduce(0, &+)
        try change(file, Int(number(entry, 60, 4)), 1) { $0 &- UInt64(sum) }
      default: throw Trouble(text: "unknown command")
      }
    }
  }

  private mutating func change(
    _ file: String, _ offset: Int, _ width: Int, _ change: (UInt64) -> UInt64
  ) throws {
    var bytes = try #require(files[file])
    let value = change(number(bytes, offset, width))
    for index in 0..<width {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
    }
    files[file] = bytes
  }

  private func number(_ bytes: [UInt8], _ offset: Int, _ width: Int) -> UInt64 {
    bytes[offset..<offset + width].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  private func text(_ bytes: [UInt8], _ offset: Int) -> String {
    String(decoding: bytes[offset..<offset + 56].prefix { $0 != 0 }, as: UTF8.self)
  }
}

@Suite(.limited) struct TableLoaderTests {
  @Test(arguments: [1, 4, 300])
  func `firmware that does as told has the tables that kernels get`(processors: Int) throws {
    let platform = makePlatform(processors: processors)
    let start: GuestAddress = 0x7FE_0000
    var firmware = Firmware(TableLoader(platform).files)

    try firmware.load(["etc/acpi/rsdp": 0xF_5AC0, "etc/acpi/tables": start.value])

    let kernels = ACPITables(platform, at: start).bytes
    #expect(firmware.files["etc/acpi/rsdp"] == Array(kernels[..<36]))
    #expect(firmware.files["etc/acpi/tables"]?[36...] == kernels[36...])
    #expect(firmware.wishes["etc/acpi/rsdp"]?.zone == 2)
    // FACS wants 64.
    #expect(firmware.wishes["etc/acpi/tables"]?.alignment == 64)
  }
}
