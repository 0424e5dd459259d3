import Devices
import Synchronization
import TestSupport
import Testing

/// Keeps what devices do, in words.
final class DeviceLog: Sendable {
  private let lines = Mutex<[String]>([])
  private let times = Mutex<[ClosedRange<UInt64>]>([])

  private final class Observer: RequestObserver {
    let label: String
    let log: DeviceLog

    init(_ label: String, _ log: DeviceLog) { (self.label, self.log) = (label, log) }

    func didFinish(_ request: DeviceRequest, from start: UInt64, to end: UInt64) {
      #expect(start > 0 && start <= end)
      log.times.withLock { $0.append(min(start, end)...end) }
      let sector = request.sector.map { " at \($0)" } ?? ""
      log.add(
        "\(label): \(request.operation)\(sector) \(request.bytes) \(request.result.rawValue)")
    }

    func wasRung() { log.add("\(label): doorbell") }

    func didInterrupt(_ interrupt: DeviceInterrupt) { log.add("\(label): \(interrupt)") }
  }

  /// For the device to be told.
  var observation: DeviceObservation { DeviceObservation { Observer($0, self) } }

  /// All lines but those of interrupts and doorbells.
  var requests: [String] {
    all.filter { !$0.hasSuffix("doorbell") && !$0.hasSuffix("line") }
  }

  /// When each request began and ended.
  var spans: [ClosedRange<UInt64>] { times.withLock { $0 } }

  /// All lines.
  var all: [String] { lines.withLock { $0 } }

  private func add(_ line: String) { lines.withLock { $0.append(line) } }
}

@Suite(.limited) struct DeviceObservationTests {
  @Test func `of a virtio disk each request is told, with its ring, its doorbell, its interrupt`()
    throws
  {
    let log = DeviceLog()
    let guest = try BlockGuest(serial: "S", observation: log.observation)
    let data = DriverQueue.Buffer(address: BlockGuest.data, count: 1024, isWritten: true)
    _ = try guest.request(0, 3, [data])
    _ = try guest.request(1, 4, [.init(address: BlockGuest.data, count: 512)])
    _ = try guest.request(0, 64, [data])
    _ = try guest.request(4)
    _ = try guest.request(8, 0, [.init(address: BlockGuest.data, count: 20, isWritten: true)])
    _ = try guest.request(77)
    guest.queue.put(7 as UInt64, BlockGuest.data)
    guest.queue.put(2 as UInt32, BlockGuest.data + 8)
    guest.queue.put(0 as UInt32, BlockGuest.data + 12)
    _ = try guest.request(11, 0, [.init(address: BlockGuest.data, count: 16)])
    guest.driver.stop()

    let ring = "virtio-block  ring 0 requestq: "
    #expect(
      log.requests == [
        ring + "read at 3 1024 ok", ring + "write at 4 512 ok", ring + "read at 64 0 failed",
        ring + "flush 0 ok", ring + "GET_ID 20 ok", ring + "unknown request 0 unsupported",
        ring + "discard at 7 1024 ok",
      ])
    #expect(log.all.contains(ring + "doorbell") && log.all.contains(ring + "line"))
    let statistics = try #require(guest.driver.device.core.statistics.rings.first).statistics
    #expect(statistics.requests == 7 && statistics.latencies.total == 7)
    #expect(statistics.bytesRead == 1044 && statistics.bytesWritten == 512)
    #expect(try #require(statistics.doorbells) <= 7, "the device's own wake is none")
  }

  @Test func `requests that are found together follow each other, and count from when they came`()
    throws
  {
    let log = DeviceLog()
    let guest = try BlockGuest(observation: log.observation)
    guest.disk.hold(true)
    guest.add(4, 0, [])
    guest.driver.ring()
    #expect(waitUntil { guest.disk.arrived == 1 })
    for _ in 0..<4 { guest.add(4, 0, []) }
    guest.disk.hold(false)
    for _ in 0..<5 { _ = try guest.driver.next() }
    guest.driver.stop()

    #expect(log.spans.count == 5)
    for (one, next) in zip(log.spans, log.spans.dropFirst()) {
      #expect(one.upperBound <= next.lowerBound)
    }
    let statistics = try #require(guest.driver.device.core.statistics.rings.first).statistics
    let all = try #require(log.spans.last).upperBound - log.spans[0].lowerBound
    #expect(statistics.latencies.longest == all)
  }

  @Test func `of an IDE drive each command is told, and one that another one ends`() throws {
    let log = DeviceLog()
    let rig = try IDERig([MemoryStore(sectors: 64)], observation: log.observation)
    rig.run(0x20, lba: 5, count: 2)
    _ = rig.take(1024)
    #expect(rig.fails(0x20, lba: 64))
    rig.run(0xE7)
    // The data of IDENTIFY is left where it is.
    rig.run(0xEC)
    rig.run(0x30, lba: 9)
    rig.give([UInt8](repeating: 1, count: 512))
    rig.settle()
    rig.write(IDERig.command, 0x66)

    #expect(
      log.requests
        == [
          "read PIO at 5 1024 ok", "read PIO 0 failed", "flush 0 ok", "IDENTIFY 0 failed",
          "write PIO at 9 512 ok", "unknown command 0 failed",
        ].map { "ide0 drive 0: " + $0 })
    let drive = rig.controller.statistics[0]
    #expect(drive.label == "ide0 drive 0" && drive["failures"] == 2)
    #expect(drive.rings[0].statistics.requests == 6)
    #expect(drive.rings[0].statistics.bytesWritten == 512)
  }

  @Test func `rings are called what they are to the driver`() throws {
    let log = DeviceLog()
    let driver = try MMIODriver(VirtioConsole(sink: RecordingSink()), observation: log.observation)
    driver.start()
    driver.queues[1].write(Array("out".utf8), at: MMIODriver.buffers)
    driver.queues[1].add([.init(address: MMIODriver.buffers, count: 3)])
    _ = try driver.complete(1)
    driver.stop()
    #expect(log.requests == ["virtio-console  ring 1 transmitq: output 3 ok"])
    let rings = driver.device.core.statistics.rings
    #expect(rings.map(\.name.description) == ["receiveq", "transmitq"])
    // What a ring can't carry is not 0 but unknown.
    #expect(rings[0].statistics.bytesWritten == nil && rings[0].statistics.bytesRead == 0)
    #expect(rings[1].statistics.bytesWritten == 3 && rings[1].statistics.bytesRead == nil)
  }

  @Test func `a device that no driver uses has no rings to tell of`() throws {
    let driver = try MMIODriver(VirtioEntropy())
    driver.stop()
    #expect(driver.device.core.statistics.rings.isEmpty)
  }
}

@Suite(.limited) struct LatencyHistogramTests {
  @Test func `nothing has no times`() {
    let times = LatencyHistogram()
    #expect(times.total == 0 && times.longest == nil && times.percentile(50) == nil)
  }

  @Test(arguments: [0, 1, 7, 8, 9, 15, 16, 1000, 123_456_789, UInt64.max >> 1, .max])
  func `a single time is known to an eighth, and the longest exactly`(_ time: UInt64) throws {
    var times = LatencyHistogram()
    times.add(time)
    times.add(time)
    #expect(times.longest == time)
    #expect(times.percentile(50) == time, "never more than the longest")
    times.add(.max)
    let median = try #require(times.percentile(50))
    #expect(median >= time && median - time <= time / 8)
  }

  @Test func `percentiles are those of the numbers`() throws {
    var times = LatencyHistogram()
    for time in 1...1000 as ClosedRange<UInt64> { times.add(time * 1000) }
    #expect((500_000...562_500).contains(try #require(times.percentile(50))))
    #expect((990_000...1_000_000).contains(try #require(times.percentile(99))))
    #expect(times.percentile(100) == 1_000_000)
  }
}
