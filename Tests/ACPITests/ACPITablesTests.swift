import ACPI
import TestSupport
import Testing

@Suite(.limited) struct ACPITablesTests {
  private let memory = TableMemory(ACPITables(makePlatform(processors: 4), at: tableStart))

  @Test func `the RSDP is what a kernel looks for`() {
    #expect(memory.text(memory.start, 8) == "RSD PTR ")
    #expect(memory.sum(memory.start, 20) == 0)
    #expect(memory.sum(memory.start, 36) == 0)
    #expect(memory.bytes[15] == 2)
    #expect(memory.number(memory.start + 20, 4) == 36)
  }

  @Test func `RSDT and XSDT list the same tables`() {
    #expect(memory.text(memory.rsdt, 4) == "RSDT")
    #expect(memory.text(memory.xsdt, 4) == "XSDT")
    let tables = memory.entries(memory.xsdt, width: 8)
    #expect(memory.entries(memory.rsdt, width: 4) == tables)
    #expect(tables.map { memory.text($0, 4) } == ["FACP", "APIC", "MCFG"])
  }

  @Test func `every table has its length and a checksum of zero`() {
    let fadt = memory.address(of: "FACP")
    let tables =
      memory.entries(memory.xsdt, width: 8) + [
        memory.rsdt, memory.xsdt, memory.number(fadt + 40, 4),
      ]
    for table in tables {
      #expect(memory.table(table).count >= 36)
      #expect(memory.table(table).reduce(0, &+) == 0, "\(memory.text(table, 4))")
    }
  }

  @Test func `the FADT points to FACS and DSDT`() {
    let fadt = memory.address(of: "FACP")
    let facs = memory.number(fadt + 36, 4)
    #expect(memory.text(facs, 4) == "FACS")
    #expect(facs % 64 == 0)
    #expect(memory.number(facs + 4, 4) == 64)
    let dsdt = memory.number(fadt + 40, 4)
    #expect(memory.text(dsdt, 4) == "DSDT")
    #expect(memory.number(fadt + 140, 8) == dsdt)
  }

  @Test func `the FADT has the fixed hardware where the description has it`() {
    let fadt = memory.address(of: "FACP")
    #expect(memory.table(fadt).count == 276)
    #expect(memory.number(fadt + 46, 2) == 9)
    #expect(memory.number(fadt + 48, 4) == 0)
    #expect(memory.number(fadt + 56, 4) == 0x600)
    #expect(memory.number(fadt + 64, 4) == 0x604)
    #expect(memory.number(fadt + 76, 4) == 0x608)
    #expect(memory.number(fadt + 80, 4) == 0x60C)
    #expect(memory.bytes(fadt + 88, 5) == [4, 2, 0, 4, 4])
    #expect(memory.bytes(fadt + 116, 13) == [1, 8, 0, 1, 0xF9, 0x0C, 0, 0, 0, 0, 0, 0, 6])
    #expect(memory.bytes(fadt + 148, 5) == [1, 32, 0, 2, 0])
    #expect(memory.number(fadt + 152, 8) == 0x600)
    #expect(memory.number(fadt + 176, 8) == 0x604)
    #expect(memory.number(fadt + 212, 8) == 0x608)
    #expect(memory.bytes(fadt + 220, 12) == [1, 32, 0, 1, 0x0C, 6, 0, 0, 0, 0, 0, 0])
    // RESET_REG_SUP set; TMR_VAL_EXT, the 32-bit timer, and HW_REDUCED_ACPI clear.
    #expect(memory.number(fadt + 112, 4) & (1 << 10 | 1 << 8 | 1 << 20) == 1 << 10)
  }

  @Test func `the MADT names processors and controllers`() {
    let structures = memory.structures(memory.address(of: "APIC"))
    #expect(
      structures == [
        [0, 8, 0, 0, 1, 0, 0, 0], [0, 8, 1, 1, 1, 0, 0, 0], [0, 8, 2, 2, 1, 0, 0, 0],
        [0, 8, 3, 3, 1, 0, 0, 0],
        [1, 12, 0, 0, 0x00, 0x00, 0xC0, 0xFE, 0, 0, 0, 0],
        [2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
        [4, 6, 0xFF, 0, 0, 1],
      ])
  }

  @Test func `processors beyond 8 bits are x2APICs`() {
    let memory = TableMemory(ACPITables(makePlatform(processors: 257), at: tableStart))
    let structures = memory.structures(memory.address(of: "APIC"))
    #expect(structures.count { $0[0] == 0 } == 255)
    #expect(
      structures.filter { $0[0] == 9 } == [
        [9, 16, 0, 0, 255, 0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0],
        [9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0],
      ])
    #expect(structures.last == [10, 12, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0])
  }

  @Test func `as many processors as KVM has fit where firmware's tables are`() {
    #expect(ACPITables(makePlatform(processors: 32), at: tableStart).bytes.count < 4096)
    #expect(ACPITables(makePlatform(processors: 4096), at: tableStart).bytes.count <= 0x1C000)
  }
}
