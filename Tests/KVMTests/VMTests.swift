import CKVM
import Host
import KVM
import Memory
import TestSupport
import Testing

@Suite("A VM", .needsKVM, .limited)
struct VMTests {
  // Writes one byte each to the pages 3 and 5, with an exit after each.
  private static let writesTwoPages: [UInt8] = [
    0xC6, 0x06, 0x04, 0x30, 0x01,  // 00: mov BYTE PTR ds:0x3004,0x1
    0xE6, 0x80,  //                   05: out 0x80,al
    0xC6, 0x06, 0x00, 0x50, 0x02,  // 07: mov BYTE PTR ds:0x5000,0x2
    0xE6, 0x80,  //                   0c: out 0x80,al
    0xF4,  //                         0e: hlt
  ]

  // The page of the code. KVM promises that its log misses no page written, not that it has no
  // other: with nested paging (kvm_amd) a page that is only read is mapped as writable, where the
  // host has it so, and counts as written from then on. kvm_pvm logs the writes alone.
  private static let codePage: UInt64 = 1 << (Bench.code / 4096)

  @Test("shares its memory with us, both ways")
  func memory() throws {
    let bench = try Bench(Self.writesTwoPages)
    _ = try bench.runToPortIO()
    #expect(try bench.memory.read(1, at: 0x3004) == [1])
    #expect(try bench.memory.read(1, at: 0x5000) == [0])
    _ = try bench.runToPortIO()
    #expect(try bench.memory.read(1, at: 0x5000) == [2])
  }

  @Test("logs the pages that the guest writes, and starts over at each look")
  func dirtyLog() throws {
    let bench = try Bench(Self.writesTwoPages, logsDirtyPages: true)
    _ = try bench.runToPortIO()
    let pages = 256
    var first = try bench.vm.dirtyLog(slot: 0, pages: pages)
    first[0] &= ~Self.codePage
    #expect(first == [1 << 3, 0, 0, 0])
    #expect(try bench.vm.dirtyLog(slot: 0, pages: pages) == [0, 0, 0, 0])
    _ = try bench.runToPortIO()
    #expect(try bench.vm.dirtyLog(slot: 0, pages: pages) == [1 << 5, 0, 0, 0])
  }

  @Test("keeps its log until it is cleared by hand where that was asked for")
  func manualDirtyLog() throws {
    let bench = try Bench(Self.writesTwoPages, logsDirtyPages: true) { vm in
      try vm.enable(.manualDirtyLogProtect, UInt64(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
    }
    _ = try bench.runToPortIO()
    _ = try bench.runToPortIO()
    let all = try bench.vm.dirtyLog(slot: 0, pages: 256)[0]
    #expect(all & ~Self.codePage == 1 << 3 | 1 << 5)
    #expect(try bench.vm.dirtyLog(slot: 0, pages: 256)[0] == all)
    try bench.vm.clearDirtyLog(slot: 0, firstPage: 0, pages: 64, bitmap: [1 << 3])
    #expect(try bench.vm.dirtyLog(slot: 0, pages: 256)[0] == all & ~(1 << 3))
    #expect(throws: KVMError.self) {
      try bench.vm.clearDirtyLog(slot: 0, firstPage: 0, pages: 128, bitmap: [0])
    }
  }

  @Test("has read-only memory: writes leave as MMIO and change nothing")
  func readOnlyMemory() throws {
    let bench = try Bench(
      [
        0xB8, 0x00, 0xC0,  //             00: mov ax,0xc000
        0x8E, 0xD8,  //                   03: mov ds,ax
        0xA0, 0x00, 0x00,  //             05: mov al,ds:0x0
        0xC6, 0x06, 0x01, 0x00, 0x99,  // 08: mov BYTE PTR ds:0x1,0x99
        0x8A, 0x1E, 0x01, 0x00,  //       0d: mov bl,BYTE PTR ds:0x1
        0xF4,  //                         11: hlt
      ], ramSize: 0x80000, roms: [(start: 0xC_0000, contents: [0x55, 0xAA])])
    let access = try bench.runToMMIO()
    #expect(access.isWrite && access.address == 0xC_0001 && access.data == 0x99)
    try bench.runToHalt()
    let registers = try bench.vcpu.registers()
    #expect(registers.rax & 0xFF == 0x55)
    #expect(registers.rbx & 0xFF == 0xAA)
    #expect(try bench.memory.read(2, at: 0xC_0000) == [0x55, 0xAA])
  }

  @Test("loses memory that is taken away")
  func removeMemory() throws {
    let bench = try Bench(
      [
        0xB8, 0x00, 0xC0,  // 00: mov ax,0xc000
        0x8E, 0xD8,  //       03: mov ds,ax
        0xA0, 0x00, 0x00,  // 05: mov al,ds:0x0
        0xF4,  //             08: hlt
      ], ramSize: 0x80000, roms: [(start: 0xC_0000, contents: [0x55])])
    try bench.vm.removeMemory(slot: 1)
    #expect(try bench.runToMMIO().address == 0xC_0000)
  }

  @Test("raises doorbells without an exit")
  func doorbells() throws {
    let bench = try Bench([
      0xB8, 0x21, 0x43,  // 00: mov ax,0x4321
      0xBA, 0x00, 0x05,  // 03: mov dx,0x500
      0xEF,  //             06: out dx,ax
      0xB8, 0xFF, 0xFF,  // 07: mov ax,0xffff
      0x8E, 0xD8,  //       0a: mov ds,ax
      0xA2, 0x10, 0x00,  // 0c: mov ds:0x10,al
      0xB0, 0x07,  //       0f: mov al,0x7
      0xE6, 0x80,  //       11: out 0x80,al
      0xF4,  //             13: hlt
    ])
    let port = try Event()
    let other = try Event()
    let memory = try Event()
    try bench.vm.connect(.port(0x500), width: 2, value: 0x4321, to: port)
    try bench.vm.connect(.port(0x500), width: 2, value: 0x1111, to: other)
    try bench.vm.connect(.memory(0x10_0000), width: 1, to: memory)
    // The first exit is the last OUT, which nobody listens to.
    #expect(try bench.runToPortIO().port == 0x80)
    let (portRang, otherRang, memoryRang) = (port.consume(), other.consume(), memory.consume())
    #expect(portRang)
    #expect(!otherRang)
    #expect(memoryRang)

    try bench.vm.connect(.port(0x500), width: 2, value: 0x4321, to: port, disconnect: true)
    var registers = try bench.vcpu.registers()
    registers.rip = Bench.code
    try bench.runToHalt()
    try bench.vcpu.setRegisters(registers)
    #expect(try bench.runToPortIO().port == 0x500)
  }

  @Test("has a clock that can be set")
  func clock() throws {
    let vm = try System().makeVM()
    let hour: UInt64 = 3_600_000_000_000
    #expect(try vm.clock().clock < hour)
    var data = kvm_clock_data()
    data.clock = 100 * hour
    try vm.setClock(data)
    let now = try vm.clock().clock
    #expect(now >= 100 * hour && now < 101 * hour)
  }

  @Test("and its VCPUs count what happens in the kernel")
  func statistics() throws {
    let bench = try Bench(Self.writesTwoPages)
    let statistics = try bench.vcpu.statistics()
    let exits = try #require(statistics.counter("exits"))
    let before = try statistics.value(of: exits)
    _ = try bench.runToPortIO()
    _ = try bench.runToPortIO()
    #expect(try statistics.value(of: exits) > before)
    #expect(statistics.counter("no such counter") == nil)
    let all = try statistics.values()
    #expect(all.contains { $0.name == "exits" && $0.value > before })
    #expect(try !bench.vm.statistics().counters.isEmpty)
  }

  @Test("refuses a VCPU that is there already, with the name of the request")
  func refusal() throws {
    let bench = try Bench()
    let error = #expect(throws: KVMError.self) { _ = try bench.vm.makeVCPU(id: 0) }
    #expect(error?.description == "KVM_CREATE_VCPU: File exists (EEXIST)")
  }
}
