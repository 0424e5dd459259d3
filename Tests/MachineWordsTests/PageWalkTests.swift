import Inspect
import KVM
import Memory
import TestSupport
import Testing

@Suite("A walk of page tables", .limited)
struct PageWalkTests {
  private let memory: GuestMemory
  init() throws { memory = try GuestMemory(ramSize: 1 << 20) }

  private func registers(
    cr0: UInt64 = 0x8000_0001, cr3: UInt64 = 0x1000, cr4: UInt64 = 0, efer: UInt64 = 0
  ) -> SpecialRegisters {
    var special = SpecialRegisters()
    (special.cr0, special.cr3, special.cr4, special.efer) = (cr0, cr3, cr4, efer)
    return special
  }

  private var long: SpecialRegisters { registers(cr4: 1 << 5, efer: 1 << 8 | 1 << 10) }

  private func store(_ entry: UInt64, at address: UInt64) throws {
    try memory.view(at: GuestAddress(address), count: 8).store(entry, 0)
  }

  @Test("without paging leads to the address itself")
  func none() {
    let walk = PageWalk(0x1234, registers(cr0: 1), memory)
    #expect(walk.mode == .none && walk.steps.isEmpty)
    #expect(walk.result == .mapped(0x1234, pageSize: 4096))
  }

  @Test("with 32-bit paging reads two entries, or one for 4 MiB with its high bits")
  func legacy() throws {
    try store(0x2007, at: 0x1000 + 1 * 4)
    try store(0x5005, at: 0x2000 + 3 * 4)
    let small = PageWalk(0x40_3ABC, registers(), memory)
    #expect(small.mode == .legacy)
    #expect(small.steps.map(\.index) == [1, 3])
    #expect(small.result == .mapped(0x5ABC, pageSize: 4096))
    #expect(!small.isWritable && small.isForUser && small.isExecutable)
    // 4 MiB at 0x1_0080_0000: bit 32 is in bit 13
    try store(0x0080_0000 | 1 << 13 | 0x83, at: 0x1000 + 2 * 4)
    let large = PageWalk(0x80_1234, registers(cr4: 1 << 4), memory)
    #expect(large.result == .mapped(0x1_0080_1234, pageSize: 4 << 20))
    // Without CR4.PSE bit 7 means nothing: the entry leads to a table, which is outside memory.
    let without = PageWalk(0x80_1234, registers(), memory)
    #expect(without.result == .tableOutsideMemory(0x0080_2004))
  }

  @Test("with PAE starts at one of four entries, whose address has 32 bytes' alignment")
  func pae() throws {
    try store(0x2001, at: 0x1020 + 3 * 8)
    try store(0x3003, at: 0x2000)
    try store(0x8000_0000_0000_4003, at: 0x3000 + 8)
    let walk = PageWalk(0xC000_1010, registers(cr3: 0x1020, cr4: 1 << 5), memory)
    #expect(walk.mode == .pae)
    #expect(walk.steps.map(\.table) == ["PDPT", "PD", "PT"])
    #expect(walk.result == .mapped(0x4010, pageSize: 4096))
    #expect(walk.isWritable && !walk.isForUser && !walk.isExecutable)
  }

  @Test("in long mode reads four entries, or five, fewer for larger pages")
  func fourLevel() throws {
    try store(0x2007, at: 0x1000 + 511 * 8)
    try store(0x3007, at: 0x2000 + 510 * 8)
    try store(0x20_00E7, at: 0x3000)
    let walk = PageWalk(0xFFFF_FFFF_8012_3456, long, memory)
    #expect(walk.result == .mapped(0x32_3456, pageSize: 2 << 20))
    #expect(walk.steps.last?.flags == "P W U A D L")
    var five = long
    five.cr4 |= 1 << 12
    #expect(PageWalk(0, five, memory).steps.map(\.table) == ["PML5"])
  }

  @Test("ends where an entry isn't present, a table isn't there, or the address isn't one")
  func faults() throws {
    #expect(PageWalk(0, long, memory).result == .notPresent)
    #expect(PageWalk(0, long, memory).steps.count == 1)
    #expect(PageWalk(1 << 47, long, memory).result == .notCanonical)
    try store(0x000F_FFFF_FFFF_F003, at: 0x1000)
    #expect(PageWalk(0, long, memory).result == .tableOutsideMemory(0x000F_FFFF_FFFF_F000))
    var wild = long
    wild.cr3 = .max
    guard case .tableOutsideMemory = PageWalk(.max, wild, memory).result else {
      Issue.record("a root outside memory was walked")
      return
    }
  }
}
