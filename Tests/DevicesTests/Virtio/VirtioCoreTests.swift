import Devices
import Memory
import Testing
import TestSupport

@Suite(.limited) struct VirtioCoreTests {
  private static func make(queueCount: Int = 1) throws -> (MMIODriver, MemoryDisk) {
    let disk = MemoryDisk(sectors: 8)
    return (try MMIODriver(VirtioBlock(disk, queueCount: queueCount)), disk)
  }

  @Test func `the registers say what the device is`() throws {
    let (driver, _) = try Self.make()
    defer { driver.stop() }
    #expect((driver[0], driver[4], driver[8]) == (0x7472_6976, 2, 2))
    #expect((driver[0x34], driver[0xB0], driver[0x44]) == (256, 0xFFFF_FFFF, 0))
    driver[0x30] = 1
    #expect(driver[0x34] == 0, "there is no second queue")
    driver[0x14] = 1
    #expect(driver[0x10] == 1 << 0 | 1 << 8, "VERSION_1 and RING_RESET")
    driver[0x14] = 2
    #expect(driver[0x10] == 0)
  }

  @Test(arguments: [(0, 0), (1 << 3, 1), (0, 1 << 1 | 1)] as [(UInt32, UInt32)])
  func `features that were not offered, or not the modern ones, are not accepted`(
    low: UInt32, high: UInt32
  ) throws {
    let (driver, _) = try Self.make()
    defer { driver.stop() }
    driver[0x70] = 3
    for (select, value) in [(0, low), (1, high)] as [(UInt32, UInt32)] {
      driver[0x24] = select
      driver[0x20] = value
    }
    driver[0x70] = 11
    #expect(driver.status == 3)
    driver[0x70] = 15
    #expect(driver.status & 64 != 0, "ready without features")
    #expect(driver.reports.all.count == 1)
  }

  @Test func `features can't change once they are agreed on`() throws {
    let (driver, _) = try Self.make()
    defer { driver.stop() }
    driver.start()
    let before = driver.device.core.driverFeatures(0)
    driver[0x24] = 0
    driver[0x20] = 0
    #expect(driver.device.core.driverFeatures(0) == before)
    #expect(before != 0)
  }

  @Test func `a reset waits for the request that is at work, and no VCPU waits for it`() throws {
    let (driver, disk) = try Self.make()
    defer { driver.stop() }
    driver.start()
    disk.hold(true)
    let header = MMIODriver.buffers
    for _ in 0..<2 {
      driver.queues[0].put(4 as UInt32, header)
      driver.queues[0].add([
        .init(address: header, count: 16), .init(address: header + 16, count: 1, isWritten: true),
      ])
    }
    driver.ring()
    #expect(waitUntil { disk.arrived == 1 })

    driver[0x70] = 0  // comes back at once
    #expect(driver.status == 15, "not done yet")
    driver[0x70] = 1
    #expect(driver.status == 15, "nothing else counts meanwhile")
    disk.hold(false)

    #expect(waitUntil { driver.status == 0 })
    #expect(driver.queues[0].usedIndex == 1, "the other request is not begun")
    #expect(!driver.line.isRaised)
    driver.start()
    #expect(driver.status == 15)
  }

  @Test func `one queue can be reset while the others go on`() throws {
    let (driver, disk) = try Self.make(queueCount: 2)
    defer { driver.stop() }
    driver.start()
    let header = MMIODriver.buffers
    func flush(_ queue: Int) throws {
      driver.queues[queue].put(4 as UInt32, header)
      driver.queues[queue].add([
        .init(address: header, count: 16), .init(address: header + 16, count: 1, isWritten: true),
      ])
      _ = try driver.complete(queue)
    }
    try flush(0)
    driver[0x30] = 0
    driver[0xC0] = 1
    #expect((driver[0xC0], driver[0x44]) == (0, 0))
    try flush(1)
    driver.addQueue(0, 8)
    try flush(0)
    #expect(disk.calls.count == 3)
  }

  @Test func `a queue's registers can't change while it is enabled`() throws {
    let (driver, _) = try Self.make()
    defer { driver.stop() }
    driver.start()
    driver.setUp(0, size: 3, .init(descriptors: 8, available: 1, used: 1))
    #expect(try #require(driver.device.core.queue(0)).registers.size == 16)
  }

  @Test(arguments: [3, 512, 65536] as [UInt32])
  func `a queue of an impossible size breaks the device`(size: UInt32) throws {
    let (driver, _) = try Self.make()
    defer { driver.stop() }
    driver[0x70] = 3
    driver[0x24] = 1
    driver[0x20] = 1
    driver[0x70] = 11
    driver.setUp(0, size: size, .init(descriptors: 0, available: 0x4000, used: 0x8000))
    driver[0x70] = 15
    #expect(driver.status & 64 != 0)
    #expect(try #require(driver.reports.all.first).contains("queue 0: its size is"))
  }

  @Test(arguments: [1 as UInt64, 2])
  func `random register accesses never trap`(seed: UInt64) throws {
    var random = SplitMix(seed)
    let (driver, _) = try Self.make(queueCount: 2)
    defer { driver.stop() }
    for _ in 0..<Trials.rounds(30_000) {
      let offset = UInt64.random(in: 0..<0x200, using: &random) & ~3
      if Bool.random(using: &random) {
        let value = random.next() >> UInt64.random(in: 32...63, using: &random)
        driver.device.write(offset: offset, width: 4, value: value)
      } else {
        #expect(driver.device.read(offset: offset, width: 4) <= UInt64(UInt32.max))
      }
    }
  }
}
