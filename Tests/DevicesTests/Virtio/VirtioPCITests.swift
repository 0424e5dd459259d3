import Devices
import Host
import Memory
import TestSupport
import Testing

/// An entropy device on PCI with the driver's moves.
private final class PCIGuest {
  let memory: GuestMemory
  let worker: Worker
  let router = RecordingRouter()
  let device: VirtioPCI
  let queue: DriverQueue

  init() throws {
    memory = try GuestMemory(ramSize: 4 << 20)
    worker = try Worker(name: "test")
    let platform = PCIPlatform(
      memory: memory, doorbells: RecordingDoorbells(), messages: router)
    device = try VirtioPCI(
      VirtioEntropy(), .init(memory: memory, worker: worker, reports: DeviceReports()), platform)
    queue = DriverQueue(memory, size: 16, at: 0x1_0000)
  }

  deinit { worker.stop() }

  func config(_ offset: UInt64, _ width: Int = 4) -> UInt64 {
    device.function.readConfiguration(offset, width: width)
  }

  func setConfig(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    device.function.writeConfiguration(offset, width: width, value: value)
  }

  /// Offset and bytes of each vendor capability, by kind.
  func capabilities() -> [UInt64: (place: UInt64, bar: UInt64, offset: UInt64, length: UInt64)] {
    var found: [UInt64: (UInt64, UInt64, UInt64, UInt64)] = [:]
    var place = config(0x34, 1)
    while place != 0 {
      if config(place, 1) == 9 {
        found[config(place + 3, 1)] = (
          place, config(place + 4, 1), config(place + 8), config(place + 12)
        )
      }
      place = config(place + 1, 1)
    }
    return found
  }

  /// What answers in range 4.
  var registers: any Device { device.function.bars[0].device }

  func set(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    registers.write(offset: offset, width: width, value: value)
  }

  func get(_ offset: UInt64, _ width: Int) -> UInt64 {
    registers.read(offset: offset, width: width)
  }

  /// All of 3.1.1; `vector` is the queue's.
  func start(vector: UInt64) {
    for status: UInt64 in [0, 1, 3] { set(0x14, 1, status) }
    for select: UInt64 in [0, 1] {
      set(0, 4, select)
      set(8, 4, select)
      set(12, 4, get(4, 4))
    }
    set(0x14, 1, 11)
    set(0x16, 2, 0)
    set(0x18, 2, 16)
    set(0x1A, 2, vector)
    for (offset, address) in [
      (0x20, queue.addresses.descriptors), (0x28, queue.addresses.available),
      (0x30, queue.addresses.used),
    ] as [(UInt64, UInt64)] {
      set(offset, 4, address & 0xFFFF_FFFF)
      set(offset + 4, 4, address >> 32)
    }
    set(0x1C, 2, 1)
    set(0x14, 1, 15)
  }

  /// Makes a request in the ring of `other`, whose memory was copied, and waits for vector 1.
  func expectMessage(after other: PCIGuest) throws {
    let ring = DriverQueue(resuming: other.queue, in: memory)
    ring.add([.init(address: MMIODriver.buffers, count: 8, isWritten: true)])
    set(0x3000, 2, 0)
    let isDone = waitUntil { ring.usedIndex == 2 }
    #expect(isDone)
    var sent: [InterruptMessage] = []
    _ = waitUntil {
      sent += router.deliver()
      return !sent.isEmpty
    }
    #expect(sent == [InterruptMessage(address: 0xFEE0_0000, data: 0x41)])
  }

  /// The function's state, or that of the device behind it.
  func save(_ part: any Stateful) -> [UInt8] {
    device.core.standStill()
    var writer = StateWriter()
    part.save(to: &writer)
    device.core.resume()
    return writer.bytes
  }

  func restore(_ bytes: [UInt8], _ part: any Stateful) throws {
    device.core.standStill()
    let reader = try StateReader(bytes)
    try part.restore(from: reader)
    device.core.resume()
  }

  func reset() {
    device.core.standStill()
    device.function.reset()
    device.reset()
    device.core.resume()
  }

  func request() {
    queue.add([.init(address: MMIODriver.buffers, count: 8, isWritten: true)])
    set(0x3000, 2, 0)
  }
}

@Suite(.limited) struct VirtioPCITests {
  @Test func `the function and its capabilities are those of the specification`() throws {
    let guest = try PCIGuest()
    #expect(guest.config(0) == 0x1044_1AF4)
    #expect(guest.config(8, 1) >= 1, "not transitional")
    let found = guest.capabilities()
    #expect(Set(found.keys) == [1, 2, 3, 4, 5])
    // That of the window is the driver's to write.
    #expect(found.allSatisfy { kind, capability in kind == 5 || capability.bar == 4 })
    let common = try #require(found[1])
    #expect((common.offset, common.length) == (0, 0x3C))
    #expect(try #require(found[2]).offset == 0x3000)
    #expect(try guest.config(#require(found[2]).place + 16) == 4, "bytes between doorbells")
    guest.set(0x16, 2, 1)
    #expect(guest.get(0x18, 2) == 0, "there is no second queue")
  }

  @Test func `a request is done and its vector raised`() throws {
    let guest = try PCIGuest()
    guest.setConfig(4, 2, 6)
    let msix = try #require(guest.device.function.slot.msix)
    guest.setConfig(0x42, 2, 0x8000)
    for vector in UInt64(0)..<2 {
      msix.write(offset: 16 * vector, width: 8, value: 0xFEE0_0000)
      msix.write(offset: 16 * vector + 8, width: 8, value: 0x40 + vector)
    }
    guest.start(vector: 1)
    #expect(guest.get(0x1A, 2) == 1)

    guest.request()

    #expect(waitUntil { guest.queue.usedIndex == 1 })
    var sent: [InterruptMessage] = []
    #expect(
      waitUntil {
        sent += guest.router.deliver()
        return !sent.isEmpty
      })
    #expect(sent == [InterruptMessage(address: 0xFEE0_0000, data: 0x41)])
    guest.set(0x1A, 2, 2)
    #expect(guest.get(0x1A, 2) == 0xFFFF, "there is no such vector")
  }

  @Test func `a function that was moved goes on with its vectors, its ring and its selectors`()
    throws
  {
    let old = try PCIGuest()
    let new = try PCIGuest()
    old.setConfig(4, 2, 6)
    let msix = try #require(old.device.function.slot.msix)
    old.setConfig(0x42, 2, 0x8000)
    msix.write(offset: 16, width: 8, value: 0xFEE0_0000)
    msix.write(offset: 24, width: 8, value: 0x41)
    old.start(vector: 1)
    old.request()
    #expect(waitUntil { old.queue.usedIndex == 1 })
    old.set(0x08, 4, 5)
    let function = old.save(old.device.function)
    let device = old.save(old.device)

    let contents = try old.memory.read(4 << 20, at: 0)
    try new.memory.write(contents.span, at: 0)
    try new.restore(function, new.device.function)
    try new.restore(device, new.device)

    #expect(new.get(0x08, 4) == 5)
    try new.expectMessage(after: old)
    new.reset()
    #expect(new.get(0x14, 1) == 0)
    #expect(new.get(0x1A, 2) == 0xFFFF)
    #expect(new.get(0x08, 4) == 0)
  }

  @Test func `without MSI-X the pin is raised until the status is read`() throws {
    let guest = try PCIGuest()
    guest.setConfig(4, 2, 6)
    guest.start(vector: 0xFFFF)
    guest.request()

    #expect(waitUntil { guest.config(6, 2) & 8 != 0 })
    #expect(guest.get(0x1000, 1) == 1)
    #expect(guest.config(6, 2) & 8 == 0)
    #expect(guest.get(0x1000, 1) == 0)
  }

  @Test func `nothing is done before the function may use memory, and all of it then`() throws {
    let guest = try PCIGuest()
    guest.setConfig(4, 2, 2)
    guest.start(vector: 0xFFFF)
    guest.request()
    // Another turn of the same thread: had it served the queue, it would have before.
    let other = try Doorbell(width: 2)
    try guest.worker.watch(other.event) { [queue = guest.queue] in queue.put(1 as UInt8, 0x3F_0000)
    }
    other.event.raise()
    #expect(waitUntil { guest.queue.bytes(1, at: 0x3F_0000) == [1] })
    #expect(guest.queue.usedIndex == 0)

    guest.setConfig(4, 2, 6)

    #expect(waitUntil { guest.queue.usedIndex == 1 })
  }

  @Test func `the structures can be reached through configuration space`() throws {
    let guest = try PCIGuest()
    let window = try #require(guest.capabilities()[5]).place
    func choose(_ offset: UInt64, _ length: UInt64, bar: UInt64 = 4) {
      guest.setConfig(window + 4, 1, bar)
      guest.setConfig(window + 8, 4, offset)
      guest.setConfig(window + 12, 4, length)
    }
    choose(0x14, 1)
    guest.setConfig(window + 16, 4, 3)
    #expect(guest.get(0x14, 1) == 3)
    #expect(guest.config(window + 16) == 3)
    choose(0x12, 2)
    #expect(guest.config(window + 16) == 1, "one queue")
    for (offset, length, bar) in [
      (0x13, 2, 4), (0x14, 1, 1), (0x14, 3, 4), (0x4000, 1, 4), (0xFFFF_FFFF, 1, 4),
    ] as [(UInt64, UInt64, UInt64)] {
      choose(offset, length, bar: bar)
      #expect(guest.config(window + 16) == 0)
    }
  }
}
