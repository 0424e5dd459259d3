import Devices
import Memory
import Storage
import TestSupport
import Testing

/// A block device with the requests that a driver makes.
final class BlockGuest {
  let disk: MemoryDisk
  let driver: MMIODriver
  static let header: UInt64 = 0x30_0000
  static let status: UInt64 = 0x30_1000
  static let data = MMIODriver.buffers

  init(
    _ disk: MemoryDisk = MemoryDisk(sectors: 64), serial: String = "", queueCount: Int = 1,
    without: VirtioFeatures = [], observation: DeviceObservation = DeviceObservation()
  ) throws {
    self.disk = disk
    driver = try MMIODriver(
      VirtioBlock(disk, serial: serial, queueCount: queueCount), observation: observation)
    driver.start(without: without)
  }

  deinit { driver.stop() }

  var queue: DriverQueue { driver.queues[0] }

  func add(_ kind: UInt32, _ sector: UInt64, _ buffers: [DriverQueue.Buffer], queue: Int = 0) {
    let ring = driver.queues[queue]
    ring.put(kind, Self.header)
    ring.put(sector, Self.header + 8)
    ring.put(0xFF as UInt8, Self.status)
    ring.add(
      [.init(address: Self.header, count: 16)] + buffers
        + [.init(address: Self.status, count: 1, isWritten: true)])
  }

  /// Does one request; returns its status and how many bytes were written.
  func request(_ kind: UInt32, _ sector: UInt64 = 0, _ buffers: [DriverQueue.Buffer] = []) throws
    -> (status: UInt8, written: UInt32)
  {
    add(kind, sector, buffers)
    let used = try driver.complete()
    return (queue.bytes(1, at: Self.status)[0], used.written)
  }
}

@Suite(.limited) struct VirtioBlockTests {
  @Test func `reads fill the guest's buffers, in pieces as it likes`() throws {
    let guest = try BlockGuest()
    let data = BlockGuest.data

    let result = try guest.request(
      0, 3,
      [
        .init(address: data, count: 100, isWritten: true),
        .init(address: data + 0x1000, count: 924, isWritten: true),
      ])

    #expect((result.status, result.written) == (0, 1025))
    let expected = Array(guest.disk.bytes[3 * 512..<5 * 512])
    #expect(guest.queue.bytes(100, at: data) == Array(expected[..<100]))
    #expect(guest.queue.bytes(924, at: data + 0x1000) == Array(expected[100...]))
    #expect(guest.driver.line.isRaised)
    guest.driver[0x64] = guest.driver[0x60]
    #expect(!guest.driver.line.isRaised)
  }

  @Test func `writes reach the disk, and a flush follows when asked for`() throws {
    let guest = try BlockGuest()
    let bytes = (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    guest.queue.write(bytes, at: BlockGuest.data)

    let write = try guest.request(1, 63, [.init(address: BlockGuest.data, count: 512)])
    let flush = try guest.request(4)

    #expect((write.status, write.written, flush.status) == (0, 1, 0))
    #expect(Array(guest.disk.bytes.suffix(512)) == bytes)
    #expect(guest.disk.calls == [.write(63 * 512, 512), .flush])
  }

  @Test func `a driver without flushes gets each write made safe`() throws {
    let guest = try BlockGuest(without: .bit(9))
    _ = try guest.request(1, 0, [.init(address: BlockGuest.data, count: 512)])
    #expect(guest.disk.calls == [.write(0, 512), .flush])
  }

  @Test(
    arguments: [
      (64, 512), (63, 1024), (.max, 512), (1 << 55, 512), (0, 511), (0, 513),
    ] as [(UInt64, UInt32)])
  func `what is not whole sectors of the disk is an I/O error`(
    sector: UInt64, count: UInt32
  ) throws {
    let guest = try BlockGuest()
    let buffer = DriverQueue.Buffer(address: BlockGuest.data, count: count)
    let writable = DriverQueue.Buffer(address: BlockGuest.data, count: count, isWritten: true)

    #expect(try guest.request(0, sector, [writable]).status == 1)
    #expect(try guest.request(1, sector, [buffer]).status == 1)
    #expect(guest.disk.calls.isEmpty)
  }

  @Test func `a disk that can only be read says so and refuses writes`() throws {
    let guest = try BlockGuest(MemoryDisk(sectors: 8, isReadOnly: true))
    guest.driver[0x14] = 0
    #expect(guest.driver[0x10] & 1 << 5 != 0)
    #expect(guest.driver[0x10] & (1 << 13 | 1 << 14) == 0)
    #expect(try guest.request(1, 0, [.init(address: BlockGuest.data, count: 512)]).status == 1)
    #expect(guest.disk.calls.isEmpty)
  }

  @Test func `the serial number comes with zeros behind it`() throws {
    let guest = try BlockGuest(serial: "KVMLITE-7")
    let result = try guest.request(
      8, 0, [.init(address: BlockGuest.data, count: 20, isWritten: true)])
    #expect((result.status, result.written) == (0, 21))
    #expect(
      guest.queue.bytes(20, at: BlockGuest.data)
        == Array("KVMLITE-7".utf8) + [UInt8](repeating: 0, count: 11))
  }

  @Test func `discard and write-zeroes take segments`() throws {
    let guest = try BlockGuest()
    func segments(_ all: [(UInt64, UInt32, UInt32)]) -> [DriverQueue.Buffer] {
      for (index, segment) in all.enumerated() {
        let place = BlockGuest.data + UInt64(16 * index)
        guest.queue.put(segment.0, place)
        guest.queue.put(segment.1, place + 8)
        guest.queue.put(segment.2, place + 12)
      }
      return [.init(address: BlockGuest.data, count: UInt32(16 * all.count))]
    }

    #expect(try guest.request(11, 0, segments([(8, 8, 0), (32, 1, 0)])).status == 0)
    #expect(try guest.request(13, 0, segments([(0, 2, 1)])).status == 0)
    #expect(try guest.request(13, 0, segments([(62, 2, 0)])).status == 0)
    let done: [MemoryDisk.Call] = [
      .discard(8 * 512, 8 * 512), .discard(32 * 512, 512), .zeroes(0, 1024, true),
      .zeroes(62 * 512, 1024, false),
    ]
    #expect(guest.disk.calls == done)

    #expect(try guest.request(11, 0, segments([(0, 1, 1)])).status == 2, "a flag for discard")
    #expect(try guest.request(13, 0, segments([(0, 1, 2)])).status == 2, "an unknown flag")
    #expect(try guest.request(11, 0, segments([(0, 1, 0), (63, 2, 0)])).status == 1, "the end")
    #expect(try guest.request(11, 0, segments([(.max, 1, 0)])).status == 1)
    #expect(try guest.request(13, 0, segments([(0, .max, 0)])).status == 1)
    #expect(try guest.request(13).status == 1, "no segment")
    #expect(guest.disk.calls == done)
  }

  @Test func `requests of unknown kinds are unsupported`() throws {
    let guest = try BlockGuest()
    for kind: UInt32 in [2, 3, 10, 14, .max] { #expect(try guest.request(kind).status == 2) }
  }

  @Test func `a request without room for its status breaks the device, a reset mends it`() throws {
    let guest = try BlockGuest()
    guest.queue.add([.init(address: BlockGuest.header, count: 16)])

    guest.driver.ring()

    #expect(waitUntil { guest.driver.status & 64 != 0 })
    #expect(guest.driver[0x60] & 2 != 0, "a configuration change interrupts")
    #expect(
      guest.driver.reports.wait(for: 1) == [
        "virtio-block: queue 0: a request has no byte for its status; "
          + "it waits for a reset by the guest's driver"
      ])
    guest.driver.start()
    #expect(!guest.driver.line.isRaised)
    #expect(try guest.request(4).status == 0)
  }

  @Test func `the configuration space has size, block size and queues`() throws {
    let guest = try BlockGuest(queueCount: 3)
    let device = guest.driver.device
    #expect(device.read(offset: 0x100, width: 4) == 64)
    #expect(device.read(offset: 0x104, width: 4) == 0)
    #expect(device.read(offset: 0x10C, width: 4) == 254)
    #expect(device.read(offset: 0x114, width: 4) == 512)
    #expect(device.read(offset: 0x118, width: 1) == 3)
    #expect(device.read(offset: 0x122, width: 2) == 3)
    #expect(device.read(offset: 0x1FE, width: 4) == 0)
  }

  @Test func `each queue is served while another one waits for the disk`() throws {
    let guest = try BlockGuest(queueCount: 2)
    guest.disk.hold(true)
    for queue in 0..<2 {
      guest.add(4, 0, [], queue: queue)
      guest.driver.ring(queue)
    }
    #expect(waitUntil { guest.disk.arrived == 2 })
    guest.disk.hold(false)
    _ = try guest.driver.next(0)
    _ = try guest.driver.next(1)
  }

  @Test func `requests that wait together are done with one interrupt decision`() throws {
    let guest = try BlockGuest()
    guest.disk.hold(true)
    guest.add(4, 0, [])
    guest.driver.ring()
    #expect(waitUntil { guest.disk.arrived == 1 })
    for _ in 0..<4 { guest.add(4, 0, []) }
    guest.disk.hold(false)
    for _ in 0..<5 { _ = try guest.driver.next() }
    guest.driver.stop()

    let ring = try #require(guest.driver.device.core.statistics.rings.first)
    #expect(ring.name.description == "requestq" && ring.number == 0)
    #expect(ring.statistics.requests == 5)
    #expect(ring.statistics.interrupts == 1)
    #expect(try #require(ring.statistics.deepest) >= 4)
    #expect(ring.statistics.bytesRead == 0 && ring.statistics.bytesWritten == 0)
    #expect(ring.statistics.latencies.total == 5)
    #expect(try #require(ring.statistics.latencies.percentile(50)) > 0)
  }
}
