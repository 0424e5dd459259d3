import Boot
import Memory
import TestSupport
import Testing

@Suite("Page tables of long mode", .limited)
struct PageTablesTests {
  /// What a walk of the tables finds for a linear address.
  private struct Leaf: Equatable {
    let physical: UInt64
    let pageSize: UInt64
    let flags: UInt64
  }

  /// Walks the tables at `root` as the CPU does (Intel SDM vol 3, figures 4-8 to 4-10).
  private func walk(_ linear: UInt64, from root: UInt64, in memory: GuestMemory) throws -> Leaf? {
    var table = root
    for shift in [39, 30, 21, 12] as [UInt64] {
      let entryAddress = GuestAddress(table + (linear >> shift & 511) * 8)
      let entry = try memory.view(at: entryAddress, count: 8).load(0, as: UInt64.self)
      guard entry & 1 != 0 else { return nil }
      let address = entry & 0xF_FFFF_FFFF_F000
      if shift == 12 || (shift < 39 && entry & 1 << 7 != 0) {
        let size = UInt64(1) << shift
        return Leaf(physical: address + linear % size, pageSize: size, flags: entry & 0xFFF)
      }
      #expect(entry & 0xFFF == 3, "tables are present and writable, and only that")
      table = address
    }
    return nil
  }

  @Test func everyPageOfTheFirst4GiBMapsToItself() throws {
    let memory = try GuestMemory(ramSize: 4 << 20)
    let plan = try plan([0xF4], mode: .long, ram: memory.ramSize)
    try plan.load(into: memory)
    let root = try #require(plan.entry.pageTableRoot).value
    for page in 0..<UInt64(2048) {
      for linear in [page << 21, page << 21 | 0x1F_FFFF] {
        // Present, writable, large; no user bit, nothing accessed or dirty.
        let expected = Leaf(physical: linear, pageSize: 2 << 20, flags: 1 << 0 | 1 << 1 | 1 << 7)
        let found = try walk(linear, from: root, in: memory)
        if found != expected {
          Issue.record("\(String(linear, radix: 16)): \(String(describing: found))")
        }
      }
    }
    #expect(try walk(0x1_0000_0000, from: root, in: memory) == nil)
    #expect(try walk(0x80_0000_0000, from: root, in: memory) == nil)
    #expect(try walk(0xFFFF_FFFF_FFFF_F000, from: root, in: memory) == nil)
  }

  @Test func tablesTakeExactlyTheirPlace() throws {
    let tables = try plan([0xF4], mode: .long).piece("kvmlite's page tables")
    #expect(tables.range == 0x1000..<0x7000)
    #expect(tables.contents.count == 0x6000)
  }
}
