import Devices
import Memory
import TestSupport
import Testing

@Suite(.limited) struct VirtioEntropyTests {
  @Test func `buffers get different random bytes, all of them`() throws {
    let driver = try MMIODriver(VirtioEntropy())
    defer { driver.stop() }
    driver.start()
    #expect(driver[8] == 4)
    let data = MMIODriver.buffers
    driver.queues[0].add([
      .init(address: data, count: 64, isWritten: true),
      .init(address: data + 64, count: 5000, isWritten: true),
    ])

    #expect(try driver.complete().written == 5064)

    let bytes = driver.queues[0].bytes(5064, at: data)
    #expect(Set(stride(from: 0, to: 5056, by: 64).map { Array(bytes[$0..<$0 + 64]) }).count == 79)
    #expect(bytes.suffix(64).contains { $0 != 0 })
  }

  @Test func `no request keeps the device for long`() throws {
    let driver = try MMIODriver(VirtioEntropy())
    defer { driver.stop() }
    driver.start()
    driver.queues[0].add([.init(address: MMIODriver.buffers, count: 1 << 20, isWritten: true)])
    #expect(try driver.complete().written == UInt32(VirtioEntropy.mostBytes))
  }

  @Test func `a request with nothing to fill breaks the device`() throws {
    let driver = try MMIODriver(VirtioEntropy())
    defer { driver.stop() }
    driver.start()
    driver.queues[0].add([.init(address: MMIODriver.buffers, count: 8)])
    driver.ring()
    #expect(waitUntil { driver.status & 64 != 0 })
  }
}

@Suite(.limited) struct VirtioConsoleTests {
  @Test func `what the guest sends is printed, in order`() throws {
    let sink = RecordingSink()
    let driver = try MMIODriver(VirtioConsole(sink: sink))
    defer { driver.stop() }
    driver.start()
    let data = MMIODriver.buffers
    driver.queues[1].write(Array("Hello, console".utf8), at: data)
    driver.queues[1].add([.init(address: data, count: 7), .init(address: data + 7, count: 7)])

    #expect(try driver.complete(1).written == 0)

    #expect(sink.bytes == Array("Hello, console".utf8))
    driver.device.write(offset: 0x108, width: 4, value: 0x21)
    #expect(sink.bytes.last == 0x21, "emerg_wr")
  }

  @Test func `input waits for the guest's buffers, and beyond that at its sender's`() throws {
    let demand = CountingDemand()
    let console = VirtioConsole(sink: RecordingSink(), demand: demand)
    let driver = try MMIODriver(console)
    defer { driver.stop() }
    #expect(console.receive([UInt8](repeating: 7, count: 5000).span) == VirtioConsole.chunk)
    driver.start()
    let data = MMIODriver.buffers
    driver.queues[0].add([.init(address: data, count: 100, isWritten: true)])
    driver.queues[0].add([.init(address: data + 100, count: 8000, isWritten: true)])

    #expect(try driver.complete(0).written == 100)
    #expect(try driver.next(0).written == UInt32(VirtioConsole.chunk - 100))

    #expect(waitUntil { demand.count == 1 })
    #expect(console.unread.isEmpty)
    driver.queues[0].add([.init(address: data, count: 10, isWritten: true)])
    driver.ring(0)
    #expect(console.receive([0x61, 0x62].span) == 2)
    #expect(try driver.next(0).written == 2)
    #expect(driver.queues[0].bytes(2, at: data) == [0x61, 0x62])
  }
}

@Suite(.limited) struct VirtioBalloonTests {
  private static let size: UInt64 = 32 << 20

  private static func touch(_ memory: GuestMemory, _ range: Range<UInt64>) throws {
    for page in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
      try memory.view(at: GuestAddress(page), count: 8).store(page | 1, 0)
    }
  }

  @Test func `inflating gives pages back to the host, and they read as zeros`() throws {
    let memory = try GuestMemory(ramSize: Self.size)
    let balloon = VirtioBalloon(memory: memory, target: 8 << 20)
    let driver = try MMIODriver(balloon, memory: memory)
    defer { driver.stop() }
    driver.start()
    #expect(driver.device.read(offset: 0x100, width: 4) == 2048)
    try Self.touch(memory, 0x100_0000..<0x180_0000)
    let queue = driver.queues[0]
    // 2048 pages, upwards and downwards, and some that aren't there
    for page in 0..<1024 as Range<UInt32> {
      queue.put(0x1000 + page, MMIODriver.buffers + 4 * UInt64(page))
      queue.put(0x17FF - page, MMIODriver.buffers + 4 * UInt64(1024 + page))
    }
    for (index, page) in ([UInt32.max, 0x2000, 0xC_0000] as [UInt32]).enumerated() {
      queue.put(page, MMIODriver.buffers + 4 * UInt64(2048 + index))
    }
    queue.add([.init(address: MMIODriver.buffers, count: 4 * 2051)])
    let before = memory.touchedBytes()

    _ = try driver.complete()

    #expect(before - memory.touchedBytes() >= 8 << 20)
    #expect(balloon.givenBack == 8 << 20)
    #expect(try memory.view(at: 0x100_0000, count: 8).load(0, as: UInt64.self) == 0)
    driver.device.write(offset: 0x104, width: 4, value: 2048)
    #expect(balloon.size == 8 << 20)
    driver.queues[1].add([.init(address: MMIODriver.buffers, count: 4 * 2048)])
    _ = try driver.complete(1)
  }

  @Test func `free pages that the guest reports go back, and only whole ones`() throws {
    let memory = try GuestMemory(ramSize: Self.size)
    let balloon = VirtioBalloon(memory: memory)
    let driver = try MMIODriver(balloon, memory: memory)
    defer { driver.stop() }
    driver.start()
    try Self.touch(memory, 0x100_0000..<0x101_0000)
    driver.queues[3].add([.init(address: 0x100_0800, count: 0x2000, isWritten: true)])
    _ = try driver.complete(3)
    #expect(balloon.givenBack == 4096)
    #expect(try memory.view(at: 0x100_0000, count: 8).load(0, as: UInt64.self) != 0)
    #expect(try memory.view(at: 0x100_1000, count: 8).load(0, as: UInt64.self) == 0)
    #expect(try memory.view(at: 0x100_2000, count: 8).load(0, as: UInt64.self) != 0)
  }

  @Test func `without statistics the reports come on the third queue`() throws {
    let memory = try GuestMemory(ramSize: Self.size)
    let balloon = VirtioBalloon(memory: memory)
    let driver = try MMIODriver(balloon, memory: memory)
    defer { driver.stop() }
    driver.start(without: .bit(1))
    try Self.touch(memory, 0x100_0000..<0x100_1000)
    driver.queues[2].add([.init(address: 0x100_0000, count: 4096, isWritten: true)])
    _ = try driver.complete(2)
    #expect(balloon.givenBack == 4096)
  }

  @Test func `statistics are asked for by handing the buffer back`() throws {
    let memory = try GuestMemory(ramSize: Self.size)
    let balloon = VirtioBalloon(memory: memory)
    let driver = try MMIODriver(balloon, memory: memory)
    defer { driver.stop() }
    driver.start()
    let queue = driver.queues[2]
    let data = MMIODriver.buffers
    for (index, (tag, value)) in ([(4, 111), (5, 222), (77, 1)] as [(UInt16, UInt64)]).enumerated()
    {
      queue.put(tag, data + UInt64(10 * index))
      queue.put(value, data + UInt64(10 * index) + 2)
    }
    let head = queue.add([.init(address: data, count: 30)])
    driver.ring(2)
    #expect(waitUntil { balloon.statistics.count == 2 })
    #expect(queue.usedIndex == 0, "the device keeps it")

    balloon.requestStatistics()

    #expect(try driver.next(2).head == UInt32(head))
    let values = balloon.statistics.map { "\($0.name) \($0.value)" }
    #expect(values == ["free_bytes 111", "total_bytes 222"])
  }

  @Test func `a new target interrupts, and the generation changes`() throws {
    let memory = try GuestMemory(ramSize: Self.size)
    let balloon = VirtioBalloon(memory: memory)
    let driver = try MMIODriver(balloon, memory: memory)
    defer { driver.stop() }
    balloon.setTarget(4096)
    #expect(!driver.line.isRaised, "no driver listens")
    driver.start()
    let generation = driver[0xFC]

    balloon.setTarget(1 << 20)

    #expect(driver[0x60] == 2)
    #expect(driver[0xFC] != generation)
    #expect(driver.device.read(offset: 0x100, width: 4) == 256)
  }
}
