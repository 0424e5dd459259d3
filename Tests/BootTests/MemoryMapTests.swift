import Boot
import Memory
import TestSupport
import Testing

@Suite("The memory map that kernels get", .limited)
struct MemoryMapTests {
  private func entries(_ ram: UInt64, _ reserved: [MemoryMap.Entry] = []) -> [String] {
    MemoryMap(ramSize: ram, reserved: reserved).entries.map {
      "\(String($0.range.lowerBound, radix: 16))-\(String($0.range.upperBound, radix: 16)) \($0.kind)"
    }
  }

  @Test func memoryGoesAroundTheHoles() {
    #expect(
      entries(128 << 20) == ["0-9fc00 ram", "9fc00-100000 reserved", "100000-8000000 ram"])
    #expect(
      entries(8 << 30, [.reserved(0xFEC0_0000..<0x1_0000_0000)]) == [
        "0-9fc00 ram", "9fc00-100000 reserved", "100000-c0000000 ram",
        "fec00000-100000000 reserved", "100000000-240000000 ram",
      ])
  }

  @Test func littleMemoryHasFewerEntries() {
    #expect(entries(1 << 20) == ["0-9fc00 ram", "9fc00-100000 reserved"])
    #expect(entries(4096) == ["0-1000 ram", "9fc00-100000 reserved"])
  }

  @Test func entriesNeverOverlap() {
    for shift in 12...46 {
      for ram in [1 << shift, (1 << shift) + 4096] as [UInt64] where ram <= GuestMemory.largestSize
      {
        let map = MemoryMap(ramSize: ram, reserved: BootLayout.pc.reserved).entries
        for (left, right) in zip(map, map.dropFirst()) {
          #expect(left.range.upperBound <= right.range.lowerBound)
        }
      }
    }
  }
}
