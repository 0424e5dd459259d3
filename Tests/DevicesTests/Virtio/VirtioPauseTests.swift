import Host
import Memory
import Network
import Synchronization
import TestSupport
import Testing

@testable import Devices

/// Whether something has happened, for threads to wait for.
private final class Flag: Sendable {
  private let value = Guarded(false)

  var isSet: Bool { value.locked { $0 } }

  func set() {
    value.locked { $0 = true }
    value.wakeAll()
  }

  func wait() -> Bool { value.waits(until: Deadline(seconds: 30).nanoseconds) { $0 } }
}

@Suite(.limited) struct VirtioPauseTests {
  private let data = MMIODriver.buffers

  /// A disk that withholds what is asked for, and has been asked to read.
  private func makeWithholding() throws -> BlockGuest {
    let guest = try BlockGuest()
    guest.disk.hold(true)
    guest.add(0, 0, [.init(address: data, count: 512, isWritten: true)])
    guest.driver.ring()
    #expect(waitUntil { guest.disk.arrived == 1 })
    return guest
  }

  @Test func `a disk stands still when the host has answered, and nobody waits until then`() throws
  {
    let guest = try makeWithholding()
    let core = guest.driver.device.core
    let still = Flag()
    core.pause { still.set() }
    // Registers answer, and what is asked for now stays in the ring.
    #expect(guest.driver.status == 15)
    guest.add(0, 1, [.init(address: data + 512, count: 512, isWritten: true)])
    guest.driver.ring()
    #expect(!still.isSet)

    guest.disk.hold(false)
    #expect(still.wait())
    #expect(guest.queue.usedIndex == 1)
    #expect(guest.disk.arrived == 1, "nothing new is begun")

    core.resume()
    _ = try guest.driver.next()
    _ = try guest.driver.next()
    #expect(guest.queue.bytes(1, at: data + 512) == [1])
  }

  @Test func `a pause that is called off is never told of, and the disk goes on`() throws {
    let guest = try makeWithholding()
    let still = Flag()
    guest.driver.device.core.pause { still.set() }
    guest.driver.device.core.resume()
    guest.disk.hold(false)
    _ = try guest.driver.next()
    #expect(try guest.request(4).status == 0)
    #expect(!still.isSet)
  }

  @Test func `a driver's reset ends in a pause, and the device is new after it`() throws {
    let guest = try makeWithholding()
    let still = Flag()
    guest.driver.device.core.pause { still.set() }
    guest.driver[0x70] = 0
    #expect(guest.driver.status == 15, "the request is not done yet")
    guest.disk.hold(false)
    #expect(still.wait())
    #expect(guest.driver.status == 0)
    // A start is seen to after the pause.
    guest.driver.start()
    guest.add(4, 0, [])
    guest.driver.ring()
    guest.driver.device.core.resume()
    _ = try guest.driver.next()
  }

  @Test func `a machine's reset forgets a ring at work and the doorbells for it`() throws {
    let guest = try BlockGuest()
    let core = guest.driver.device.core
    core.whileStill {
      guest.add(0, 0, [.init(address: data, count: 512, isWritten: true)])
      guest.driver.ring()
      guest.driver.device.reset()
    }
    #expect(guest.driver.status == 0)
    let isRung = core.signals.doorbells[0].event.isRaised
    #expect(!isRung)
    #expect(!guest.driver.line.isRaised)
    guest.driver.start()
    #expect(try guest.request(4).status == 0)
    #expect(guest.disk.calls == [.flush])
  }

  @Test func `without a thread the device says so and waits for a reset`() throws {
    let memory = try GuestMemory(ramSize: 4 << 20)
    let worker = try Worker(name: "none") { (_, _) throws(Errno) in throw .tryAgain }
    let reports = try DeviceReports()
    let device = try VirtioMMIO(
      VirtioEntropy(), .init(memory: memory, worker: worker, reports: reports),
      line: RecordingLine())
    for (register, value) in [
      (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x38, 8), (0x80, 0x4000), (0x90, 0x5000),
      (0xA0, 0x6000), (0x44, 1), (0x70, 15),
    ] as [(UInt64, UInt64)] { device.write(offset: register, width: 4, value: value) }
    #expect(device.read(offset: 0x70, width: 4) == 64 + 15)
    let text = try #require(reports.drain().first)
    #expect(text.hasPrefix("virtio-rng: no thread for queue 0: ") && text.contains("EAGAIN"))
    worker.stop()
  }
}

@Suite(.limited) struct DeviceReportsTests {
  @Test func `a driver that breaks its device again and again is told of once`() throws {
    let driver = try MMIODriver(VirtioEntropy())
    defer { driver.stop() }
    for _ in 0..<1000 {
      driver[0x70] = 0
      driver[0x70] = 3
      driver[0x24] = 1
      driver[0x20] = 1
      driver[0x70] = 11
      driver.setUp(0, size: 3, .init())
      driver[0x70] = 15
    }
    #expect(driver.reports.all.count == 1)
    let more = driver.reports.reports.summary()
    #expect(more.count == 1)
    #expect(more[0].hasPrefix("999 more like this: virtio-rng: queue 0: its size is 3"))
    #expect(driver.reports.reports.summary() == [], "each is counted once")
  }

  @Test func `devices and kinds are told apart, and a program may say several things`() throws {
    let reports = try DeviceReports()
    for _ in 0..<2 {
      reports.report(.driver, "disk0", "a")
      reports.report(.driver, "disk1", "b")
      reports.report(.backEnd, "disk0", "c")
      reports.report(.words, "net0", "d")
    }
    let isRaised = reports.event.isRaised
    #expect(isRaised)
    #expect(reports.drain() == ["a", "b", "c", "d", "d"])
    let isStillRaised = reports.event.isRaised
    #expect(!isStillRaised)
    #expect(reports.drain() == [])
    for _ in 0..<40 { reports.report(.words, "net0", "e") }
    #expect(reports.drain().count == 30)
    #expect(reports.summary().contains("10 more like this: d"))
  }
}

@Suite(.limited) struct VirtioMoveTests {
  private func save(_ driver: MMIODriver) -> [UInt8] {
    driver.device.core.whileStill {
      var writer = StateWriter()
      driver.device.save(to: &writer)
      return writer.bytes
    }
  }

  private func move(_ old: MMIODriver, into new: MMIODriver) throws {
    let bytes = save(old)
    let contents = try old.memory.read(4 << 20, at: 0)
    try new.memory.write(contents.span, at: 0)
    new.takeOver(old)
    try new.device.core.whileStill { try new.device.restore(from: StateReader(bytes)) }
  }

  @Test func `a guest hears that its connections didn't come along`() throws {
    let (old, new) = (try VsockDriver(), try VsockDriver())
    defer {
      old.stop()
      new.stop()
    }
    // Its end would be a packet of its own.
    let (program, _) = try old.open(port: 80)
    defer { withExtendedLifetime(program) {} }
    let event = MMIODriver.buffers + 0x10_0000
    old.driver.queues[2].write([9, 9, 9, 9], at: event)
    old.driver.queues[2].add([.init(address: event, count: 4, isWritten: true)])
    old.driver.ring(2)

    try move(old.driver, into: new.driver)

    // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
    #expect(try new.driver.next(2).written == 4)
    #expect(new.driver.queues[2].bytes(4, at: event) == [0, 0, 0, 0])
    #expect(new.device.connectionCount == 0)
    // Buffers that the old one had are the new one's.
    let other = try new.open(port: 81)
    try other.program.write([5])
    #expect(try new.next().data == [5])
  }

  @Test func `a guest without connections hears nothing`() throws {
    let (old, new) = (try VsockDriver(), try VsockDriver())
    defer {
      old.stop()
      new.stop()
    }
    old.driver.queues[2].add([
      .init(address: MMIODriver.buffers + 0x10_0000, count: 4, isWritten: true)
    ])
    try move(old.driver, into: new.driver)
    _ = try new.open(port: 80)
    #expect(new.driver.queues[2].usedIndex == 0)
  }

  @Test func `programs see their connections end when the machine is reset`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, _) = try vsock.open(port: 80)
    vsock.driver.device.core.whileStill { vsock.driver.device.reset() }
    #expect(try program.read() == [])
    #expect(vsock.device.connectionCount == 0)
  }

  @Test func `a guest whose cable was out hears that it is in`() throws {
    let mac = MACAddress(stableFor: "test")
    let networks = (try TestNetwork(), try TestNetwork())
    let old = try MMIODriver(VirtioNet(networks.0, mac: mac))
    let new = try MMIODriver(VirtioNet(networks.1, mac: mac))
    defer {
      old.stop()
      new.stop()
    }
    old.start()
    old.queues[0].add([.init(address: MMIODriver.buffers, count: 2000, isWritten: true)])
    old.ring(0)
    networks.0.end()
    #expect(waitUntil { old.device.read(offset: 0x106, width: 2) == 0 })
    old[0x64] = 3
    let generation = old[0xFC]

    try move(old, into: new)

    #expect(new.device.read(offset: 0x106, width: 2) == 1)
    #expect(new[0x60] & 2 != 0 && new[0xFC] != generation)
    // The buffer that was posted to the old one.
    networks.1.deliver([UInt8](repeating: 7, count: 60))
    #expect(try new.next(0).written == 72)
  }

  @Test func `a state that the host can't keep up is refused`() throws {
    let mac = MACAddress(stableFor: "test")
    let old = try MMIODriver(VirtioNet(TestNetwork([.checksum, .tcp4]), mac: mac))
    let new = try MMIODriver(VirtioNet(TestNetwork(), mac: mac))
    defer {
      old.stop()
      new.stop()
    }
    old.start()
    #expect(throws: StateError.impossible("features")) { try move(old, into: new) }
  }
}
