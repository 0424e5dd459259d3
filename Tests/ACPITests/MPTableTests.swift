import ACPI
import TestSupport
import Testing

@Suite(.limited) struct MPTableTests {
  private let memory = TableMemory(MPTable(makePlatform(processors: 3), at: 0xFC000))

  // The entries behind the header: 20 bytes for a processor, 8 for every other.
  private func entries(_ memory: TableMemory) -> [[UInt8]] {
    let table = memory.number(memory.start + 4, 4)
    let count = Int(memory.number(table + 4, 2))
    var rest = memory.bytes(table, count).dropFirst(44)
    var entries: [[UInt8]] = []
    while let type = rest.first {
      let size = type == 0 ? 20 : 8
      entries.append(Array(rest.prefix(size)))
      rest = rest.dropFirst(size)
    }
    return entries
  }

  @Test func `the floating pointer points to the table`() {
    #expect(memory.text(memory.start, 4) == "_MP_")
    #expect(memory.sum(memory.start, 16) == 0)
    let table = memory.number(memory.start + 4, 4)
    #expect(memory.text(table, 4) == "PCMP")
    let length = Int(memory.number(table + 4, 2))
    #expect(memory.bytes(table, length).count == length)
    #expect(memory.sum(table, length) == 0)
    #expect(memory.number(table + 36, 4) == 0xFEE0_0000)
    #expect(memory.number(table + 34, 2) == entries(memory).count)
  }

  @Test func `entries come by rising type and say what there is`() {
    let entries = entries(memory)
    let types = entries.map { $0[0] }
    #expect(types == types.sorted())
    #expect(entries.prefix(3).map { $0[1] } == [0, 1, 2])
    #expect(entries.prefix(3).map { $0[3] } == [3, 1, 1])
    #expect(entries[3] == [1, 0] + "PCI   ".utf8)
    #expect(entries[4] == [1, 1] + "ISA   ".utf8)
    #expect(entries[5] == [2, 0, 0x11, 1, 0, 0, 0xC0, 0xFE])
    #expect(entries.suffix(2) == [[4, 3, 0, 0, 1, 0, 0xFF, 0], [4, 1, 0, 0, 1, 0, 0xFF, 1]])
  }

  @Test func `every ISA interrupt but the cascade is an input of the same number`() {
    let interrupts = entries(memory).filter { $0[0] == 3 && $0[4] == 1 }
    #expect(interrupts.map { $0[5] } == [0, 1] + Array(3...15))
    #expect(interrupts.allSatisfy { $0[5] == $0[7] })
    #expect(interrupts.map { $0[2] } == (interrupts.map { $0[5] == 9 ? 0x0D : 0 }))
  }

  @Test func `INTA# of each PCI device is a level-triggered input, active low`() {
    let interrupts = entries(memory).filter { $0[0] == 3 && $0[4] == 0 }
    #expect(interrupts.map { $0[5] } == (1..<32).map { $0 << 2 })
    #expect(interrupts.map { $0[7] } == (1..<32).map { 16 + $0 % 8 })
    #expect(interrupts.allSatisfy { $0[2] == 0x0F })
  }

  @Test func `processors without an 8-bit ID are left out`() {
    let memory = TableMemory(MPTable(makePlatform(processors: 300), at: 0xFC000))
    #expect(entries(memory).count { $0[0] == 0 } == 255)
    #expect(memory.bytes.count <= 0x4000)
  }
}
