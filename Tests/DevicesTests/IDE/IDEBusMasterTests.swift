import Devices
import Memory
import TestSupport
import Testing

@Suite("IDE bus master", .limited)
struct IDEBusMasterTests {
  private static let active: UInt64 = 1
  private static let error: UInt64 = 2
  private static let interrupt: UInt64 = 4
  private static let activeInterrupt: UInt64 = 5

  /// Waits until the drive no longer works, without taking its interrupt back.
  private func settle(_ rig: IDERig) {
    while rig.alternateStatus & IDEStatus.busy != 0 { yieldProcessor() }
  }

  @Test("reads into regions of any even size, and writes from them", arguments: [false, true])
  func transfer(isExt: Bool) throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 2), (0x9002, 1000), (0xA000, 534)])
    rig.start(isExt ? 0x25 : 0xC8, lba: 5, count: 3, isExt: isExt)
    #expect(rig.line.edges == 0)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.interrupt)
    #expect(rig.settle() == IDEStatus.idle)
    var bytes = try rig.memory.read(2, at: 0x8000)
    bytes += try rig.memory.read(1000, at: 0x9002)
    bytes += try rig.memory.read(534, at: 0xA000)
    #expect(bytes == rig.store.sectors(5..<8))
    rig.stopMaster()
    rig.write(IDERig.busMaster + 2, 4)
    #expect(rig.masterFlags == 0)
    rig.start(isExt ? 0x35 : 0xCA, lba: 50, count: 3, isExt: isExt)
    rig.master(toMemory: false)
    settle(rig)
    #expect(rig.masterFlags == Self.interrupt)
    #expect(rig.store.sectors(50..<53) == bytes)
    let drive = rig.controller.statistics[0]
    let statistics = drive.rings[0].statistics
    #expect(drive["dma_transfers"] == 2 && statistics.interrupts == 2)
    #expect(statistics.bytesRead == 3 * 512 && statistics.bytesWritten == 3 * 512)
    #expect(drive["data_port_accesses"] == 0)
    #expect(statistics.requests == 2 && statistics.deepest == 1 && statistics.doorbells == nil)
  }

  @Test("started before the command, it waits for it")
  func startFirst() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 512)])
    rig.master(toMemory: true)
    #expect(rig.masterFlags == Self.active)
    rig.start(0xC8, lba: 1)
    settle(rig)
    #expect(rig.masterFlags == Self.interrupt)
    #expect(try rig.memory.read(512, at: 0x8000) == rig.store.sector(1))
  }

  @Test("regions with room left: interrupt, and still active")
  func larger() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 1024)])
    rig.start(0xC8, lba: 1)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.activeInterrupt)
    #expect(rig.settle() == IDEStatus.idle)
    rig.stopMaster()
    #expect(rig.masterFlags == Self.interrupt)
  }

  @Test("regions with too little: not active, no interrupt, no error; the drive waits for more")
  func smaller() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 1024)])
    rig.start(0xC8, lba: 1, count: 3)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == 0)
    #expect(rig.alternateStatus == IDEStatus.data)
    #expect(rig.line.edges == 0)
    try rig.table([(0xA000, 512)])
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.interrupt)
    #expect(try rig.memory.read(1024, at: 0x8000) == rig.store.sectors(1..<3))
    #expect(try rig.memory.read(512, at: 0xA000) == rig.store.sector(3))
  }

  @Test(
    "a region, or the table, where no memory is: error, not active, no interrupt",
    arguments: [
      0x10_0000, 0xF_FF00, 0xFFFF_FFFE, 0xFFFF_0000,
    ] as [UInt32])
  func outside(base: UInt32) throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 512), (base, 512)])
    rig.start(0xC8, lba: 1, count: 2)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.error)
    #expect(rig.line.edges == 0)
    #expect(try rig.memory.read(512, at: 0x8000) == rig.store.sector(1))
    rig.write(IDERig.busMaster + 4, 0x10_0000, 4)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.error)
    rig.write(IDERig.busMaster + 2, 2)
    #expect(rig.masterStatus & 2 == 0)
    rig.write(IDERig.control, 4)
    rig.write(IDERig.control, 0)
    #expect(rig.settle() == IDEStatus.idle)
  }

  @Test("ROM is not written to")
  func rom() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0xFFFF_0000, 512)])
    rig.start(0xC8, lba: 1)
    rig.master(toMemory: true)
    settle(rig)
    #expect(try rig.memory.read(512, at: 0xFFFF_0000) == [UInt8](repeating: 0xEE, count: 512))
  }

  @Test("a table that has lost its end stops at 64 KiB")
  func runaway() throws {
    let rig = try IDERig(sectors: 70_000)
    // 8192 regions of 2 bytes, up to the boundary: 16 KiB of 32 MiB.
    try rig.table(
      [(UInt32, UInt32)](repeating: (0x8000, 2), count: 8192), at: 0x2_0000, hasEnd: false)
    rig.start(0x25, lba: 0, count: 0, isExt: true)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.error)
    // The command waits for more until it is reset, and counts when it is over.
    rig.write(IDERig.control, 4)
    #expect(rig.controller.statistics[0].rings[0].statistics.bytesRead == 32 * 512)
  }

  @Test("a count of 0 is 64 KiB; bit 0 of count and base don't count")
  func counts() throws {
    let rig = try IDERig(sectors: 256)
    try rig.table([(0x2_0001, 0), (0x4_0000, 513)])
    rig.start(0xC8, lba: 0, count: 129)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.interrupt)
    #expect(try rig.memory.read(65536, at: 0x2_0000) == rig.store.sectors(0..<128))
    #expect(try rig.memory.read(512, at: 0x4_0000) == rig.store.sector(128))
  }

  @Test("in the wrong direction nothing moves")
  func direction() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 512)])
    rig.start(0xC8, lba: 1)
    rig.master(toMemory: false)
    #expect(rig.alternateStatus == IDEStatus.data)
    #expect(rig.masterFlags == Self.active)
    #expect(try rig.memory.read(512, at: 0x8000) == [UInt8](repeating: 0, count: 512))
  }

  @Test("without Bus Master Enable nothing moves")
  func disabled() throws {
    let rig = try IDERig([MemoryStore(sectors: 128)], mayMaster: false)
    try rig.table([(0x8000, 512)])
    rig.start(0xC8, lba: 1)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterFlags == Self.active)
    #expect(try rig.memory.read(512, at: 0x8000) == [UInt8](repeating: 0, count: 512))
  }

  @Test("stopped in flight it is not active at once; the drive is busy until memory is left alone")
  func stopped() throws {
    let rig = try IDERig(sectors: 128)
    try rig.table([(0x8000, 512)])
    rig.store.hold(true)
    rig.start(0xC8, lba: 1)
    rig.master(toMemory: true)
    rig.stopMaster()
    #expect(rig.masterFlags == 0)
    #expect(rig.alternateStatus == IDEStatus.busy)
    rig.write(IDERig.control, 4)
    rig.write(IDERig.control, 0)
    #expect(rig.alternateStatus == IDEStatus.busy)
    rig.store.hold(false)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.masterFlags == 0)
    #expect(rig.line.edges == 0)
  }

  @Test("a bad sector: those before it are in memory, then the command's error")
  func unreadable() throws {
    let rig = try IDERig(sectors: 128)
    rig.store.spoil(7)
    try rig.table([(0x8000, 5 * 512)])
    rig.start(0xC8, lba: 5, count: 5)
    rig.master(toMemory: true)
    settle(rig)
    #expect(rig.masterStatus & Self.interrupt != 0)
    #expect(rig.settle() == IDEStatus.failed)
    #expect(rig.read(IDERig.error) == 0x40)
    #expect(rig.address() == 7)
    #expect(try rig.memory.read(1024, at: 0x8000) == rig.store.sectors(5..<7))
  }

  @Test("DATA SET MANAGEMENT discards the ranges that its list names")
  func trim() throws {
    let rig = try IDERig(sectors: 128)
    let list = try rig.memory.view(at: 0x8000, count: 512)
    list.store(UInt64(8) << 48 | 16, 0)
    list.store(UInt64(1) << 48 | 127, 16)
    try rig.table([(0x8000, 512)])
    rig.start(0x06, count: 1, features: 1, isExt: true)
    rig.master(toMemory: false)
    settle(rig)
    #expect(rig.settle() == IDEStatus.idle)
    #expect(rig.store.discarded == [8192..<12288, 65024..<65536])
    list.store(UInt64(2) << 48 | 127, 0)
    rig.start(0x06, count: 1, features: 1, isExt: true)
    rig.master(toMemory: false)
    settle(rig)
    #expect(rig.settle() == IDEStatus.failed)
    #expect(rig.fails(0x06, count: 9, features: 1, isExt: true))
    #expect(rig.fails(0x06, count: 1, features: 0, isExt: true))
  }

  @Test("the registers keep what can be written: direction, capability, a table on 4 bytes")
  func registers() throws {
    let rig = try IDERig(sectors: 128)
    rig.write(IDERig.busMaster, 0xFF)
    #expect(rig.read(IDERig.busMaster) == 9)
    rig.write(IDERig.busMaster + 2, 0xF9)
    #expect(rig.masterStatus == 0x61)
    rig.write(IDERig.busMaster + 4, 0xFFFF_FFFF, 4)
    #expect(rig.read(IDERig.busMaster + 4, 4) == 0xFFFF_FFFC)
    #expect(rig.read(IDERig.busMaster + 1) == 0 && rig.read(IDERig.busMaster + 3) == 0)
    #expect(rig.read(IDERig.busMaster + 8, 4) == 0)
  }
}
