import Boot
import Memory
import TestSupport
import Testing

@Suite("Firmware", .limited)
struct FirmwareImageTests {
  /// A ROM of `count` KiB with a far jump at its reset vector.
  private func rom(_ kibibytes: Int) -> [UInt8] {
    let body = (0..<(kibibytes << 10) - 16).map { UInt8(truncatingIfNeeded: $0 >> 10) }
    return body + [0xEA, 0x5B, 0xE0, 0x00, 0xF0] + [UInt8](repeating: 0, count: 11)
  }

  private func plan(_ bytes: [UInt8], ram: UInt64 = 128 * mebibyte) throws(BootError) -> BootPlan {
    try BootPlan(firmware: BootFile(bytes, name: "guest"), ramSize: ram)
  }

  private func refusal(_ bytes: [UInt8], ram: UInt64 = 128 * mebibyte) throws -> BootError {
    try #require(throws: BootError.self) { _ = try plan(bytes, ram: ram) }
  }

  @Test(arguments: Trials.cases([64, 128, 256, 1024, 16384]))
  func romEndsAt4GiBWithACopyBelow1MiB(kibibytes: Int) throws {
    let rom = rom(kibibytes)
    let plan = try plan(rom)
    #expect(plan.format == .firmware)
    #expect(plan.roms.count == 1 && plan.roms[0].contents == rom)
    #expect(plan.roms[0].start.value == (1 << 32) - UInt64(rom.count))
    let copy = try plan.piece("the firmware's copy")
    let size = min(rom.count, 256 << 10)
    #expect(copy.range == 0x10_0000 - UInt64(size)..<0x10_0000)
    #expect(Array(copy.contents) == rom.suffix(size))
  }

  @Test func processorStartsAsAfterAReset() throws {
    let entry = try plan(rom(128)).entry
    #expect(entry.mode == .real && entry.instructionPointer == 0xFFF0 && entry.flags == 2)
    #expect(entry.code.selector == 0xF000 && entry.code.base == 0xFFFF_0000)
    #expect(entry.code.limit == 0xFFFF && entry.data.selector == 0 && entry.data.base == 0)
    #expect(entry.stackPointer == 0 && entry.rdx == 0x600)
  }

  @Test func memoryHoldsBoth() throws {
    let plan = try plan(rom(64), ram: 1 << 20)
    let memory = try GuestMemory(ramSize: 1 << 20, roms: plan.roms)
    try plan.load(into: memory)
    let vector: [UInt8] = [0xEA, 0x5B, 0xE0, 0x00, 0xF0]
    #expect(try memory.read(5, at: 0xFFFF_FFF0) == vector)
    #expect(try memory.read(5, at: 0xF_FFF0) == vector)
  }

  @Test func otherFilesAreRefused() throws {
    for count in [0, 1, 65535, 65537, (16 << 20) + 65536] {
      expect(
        try refusal([UInt8](repeating: 1, count: count)), .malformed, says: "has \(count) bytes",
        "seabios")
    }
    for byte in [0, 0xFF] as [UInt8] {
      expect(
        try refusal([UInt8](repeating: byte, count: 65536)), .malformed, says: "no reset vector")
    }
    expect(try refusal(rom(64), ram: (1 << 20) - 4096), .memory, says: "memorySize 1M")
  }
}
