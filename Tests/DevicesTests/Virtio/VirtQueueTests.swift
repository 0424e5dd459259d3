import Devices
import Memory
import Testing
import TestSupport

@Suite(.limited) struct VirtQueueTests {
  private static let features: VirtioFeatures = [.version1, .indirect, .eventIndex]
  private static let base: UInt64 = 0x1000

  private static func make(
    size: UInt16 = 8, features: VirtioFeatures = features, start: UInt16 = 0
  ) throws -> (VirtQueue, DriverQueue) {
    let memory = try GuestMemory(ramSize: 1 << 20)
    let driver = DriverQueue(memory, size: size, at: base, start: start)
    let queue = try VirtQueue(
      index: 3, size: size, addresses: driver.addresses, features: features, memory: memory,
      start: .init(start))
    return (queue, driver)
  }

  @Test func `a chain comes as what to read and what to write`() throws {
    let (queue, driver) = try Self.make()
    driver.write([1, 2, 3], at: 0x8000)
    let head = driver.add([
      .init(address: 0x8000, count: 3), .init(address: 0x9000, count: 5, isWritten: true),
      .init(address: 0xA000, count: 7, isWritten: true),
    ])
    var chain = DescriptorChain()

    #expect(try queue.next(&chain))

    #expect(chain.head == head)
    #expect(chain.readable.map(\.count) == [3])
    #expect(chain.writable.map(\.count) == [5, 7])
    #expect((chain.readableCount, chain.writableCount) == (3, 12))
    #expect(chain.load(1, as: UInt16.self) == 0x0302)
    #expect(try !queue.next(&chain))
  }

  @Test func `an indirect table is followed, also behind plain descriptors`() throws {
    let (queue, driver) = try Self.make()
    driver.addIndirect(
      [.init(address: 0x8000, count: 3), .init(address: 0x9000, count: 5, isWritten: true)],
      table: 0x7000)
    // 0 -> 1, which has the table
    driver.setDescriptor(4, address: 0xA000, count: 9, flags: DriverQueue.flagNext, next: 5)
    driver.setDescriptor(5, address: 0x7000, count: 32, flags: DriverQueue.flagIndirect)
    driver.offer(4)
    var chain = DescriptorChain()

    #expect(try queue.next(&chain))
    #expect((chain.readable.map(\.count), chain.writable.map(\.count)) == ([3], [5]))
    #expect(try queue.next(&chain))
    #expect((chain.readable.map(\.count), chain.writable.map(\.count)) == ([9, 3], [5]))
  }

  @Test func `fields that are cut into pieces are put together`() throws {
    let (queue, driver) = try Self.make()
    driver.write([0x11, 0x22, 0x33, 0x44, 0x55], at: 0x8000)
    driver.add([
      .init(address: 0x8000, count: 1), .init(address: 0x8001, count: 0),
      .init(address: 0x8001, count: 2), .init(address: 0x8003, count: 2),
      .init(address: 0x9000, count: 1, isWritten: true),
      .init(address: 0x9001, count: 2, isWritten: true),
    ])
    var chain = DescriptorChain()
    #expect(try queue.next(&chain))

    #expect(chain.load(0, as: UInt32.self) == 0x4433_2211)
    chain.dropReadable(2)
    #expect(chain.load(0, as: UInt16.self) == 0x4433)
    #expect(chain.readableCount == 3)
    let taken = chain.takeLastWritable()
    let last = try #require(taken)
    last.store(0xEE as UInt8, 0)
    #expect(chain.fill(from: [0xA1, 0xA2, 0xA3].span) == 2)
    #expect(driver.bytes(4, at: 0x9000) == [0xA1, 0xA2, 0xEE, 0])
  }

  @Test func `a chain has at most 1024 descriptors of an indirect table`() throws {
    for count in [1024, 1025] {
      let (queue, driver) = try Self.make()
      driver.addIndirect(
        Array(repeating: .init(address: 0x8000, count: 1), count: count), table: 0x40000)
      var chain = DescriptorChain()
      if count == 1024 {
        #expect(try queue.next(&chain))
        #expect(chain.readable.count == 1024)
      } else {
        #expect(throws: RingFault(queue: 3, .chainLength(1024))) { try queue.next(&chain) }
      }
    }
  }

  @Test func `no more requests can be under way than the queue has descriptors`() throws {
    let (queue, driver) = try Self.make()
    var chain = DescriptorChain()
    for _ in 0..<8 {
      driver.add([.init(address: 0x8000, count: 1)])
      #expect(try queue.next(&chain))
    }
    driver.offer(0)
    #expect(throws: RingFault(queue: 3, .availableIndex(9, next: 8))) { try queue.next(&chain) }
  }

  @Test func `indices go on past 65535`() throws {
    let (queue, driver) = try Self.make(start: 65530)
    var chain = DescriptorChain()

    for round in 0..<20 as Range<UInt32> {
      driver.add([.init(address: 0x8000, count: 1, isWritten: true)])
      #expect(try queue.next(&chain))
      queue.complete(chain.head, written: round)
      let used = try #require(driver.takeUsed())
      #expect((used.head, used.written) == (UInt32(chain.head), round))
    }

    #expect(driver.usedIndex == 65530 &+ 20)
  }

  @Test func `an event index says which completion interrupts`() throws {
    let (queue, driver) = try Self.make()
    driver.setUsedEvent(2)
    var decisions: [Bool] = []

    for _ in 0..<5 {
      queue.complete(0, written: 0)
      decisions.append(queue.takeInterruptDecision())
    }

    #expect(decisions == [false, false, true, false, false])
    #expect(!queue.takeInterruptDecision(), "nothing new")
  }

  @Test func `a batch interrupts if the event lies in it`() throws {
    let (queue, driver) = try Self.make()
    driver.setUsedEvent(2)
    for _ in 0..<5 { queue.complete(0, written: 0) }
    #expect(queue.takeInterruptDecision())
  }

  @Test func `without an event index the flags say it`() throws {
    let (queue, driver) = try Self.make(features: [.version1])
    driver.setNoInterrupt(true)
    queue.complete(0, written: 0)
    #expect(!queue.takeInterruptDecision())
    driver.setNoInterrupt(false)
    queue.complete(0, written: 0)
    #expect(queue.takeInterruptDecision())

    queue.silenceDoorbell()
    #expect(driver.isDoorbellSilenced)
    #expect(!queue.awaitDoorbell())
    #expect(!driver.isDoorbellSilenced)
  }

  @Test func `a request that comes before the doorbell is asked for is seen`() throws {
    let (queue, driver) = try Self.make()
    var chain = DescriptorChain()
    driver.add([.init(address: 0x8000, count: 1)])
    #expect(try queue.next(&chain))
    driver.add([.init(address: 0x8000, count: 1)])

    #expect(queue.awaitDoorbell())

    #expect(driver.availableEvent == 1)
  }

  /// Whoever is told takes the queue away, and by then there may be another in its place.
  @Test func `only one of those who end a queue is told that it is over`() throws {
    let signals = NoSignals()
    let idle = ActiveQueue(try Self.make().0, features: Self.features, signals: signals)
    #expect((idle.stop(), idle.stop()) == (true, false))

    let busy = ActiveQueue(try Self.make().0, features: Self.features, signals: signals)
    var told: [Bool] = []
    let isOver = busy.takeTurn { told = [busy.stop(), busy.stop()] }
    told.append(busy.stop())

    #expect(isOver)
    #expect(told == [false, false, false])
  }
}

/// What a driver does to the ring, and what the device says of it.
@Suite(.limited) struct HostileRingTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let cause: RingFault.Cause
    var features: VirtioFeatures = [.version1, .indirect]
    let spoil: @Sendable (DriverQueue) -> Void

    init(
      _ name: String, _ cause: RingFault.Cause, features: VirtioFeatures = [.version1, .indirect],
      _ spoil: @escaping @Sendable (DriverQueue) -> Void
    ) {
      (testDescription, self.cause, self.features, self.spoil) = (name, cause, features, spoil)
    }
  }

  private static let next = DriverQueue.flagNext
  private static let write = DriverQueue.flagWrite
  private static let indirect = DriverQueue.flagIndirect

  static let cases: [Case] = [
    Case("loop", .chainLength(8)) {
      $0.setDescriptor(0, address: 0x8000, count: 1, flags: next, next: 1)
      $0.setDescriptor(1, address: 0x8000, count: 1, flags: next, next: 0)
      $0.offer(0)
    },
    Case("loop onto itself", .chainLength(8)) {
      $0.setDescriptor(7, address: 0, count: 0, flags: next, next: 7)
      $0.offer(7)
    },
    Case("head too large", .descriptorNumber(8, count: 8)) { $0.offer(8) },
    Case("next too large", .descriptorNumber(0xFFFF, count: 8)) {
      $0.setDescriptor(0, address: 0x8000, count: 1, flags: next, next: 0xFFFF)
      $0.offer(0)
    },
    Case("beyond memory", .bufferOutsideMemory(address: 0xF_FFFF, count: 2)) {
      $0.add([.init(address: 0xF_FFFF, count: 2)])
    },
    Case("address overflows", .bufferOutsideMemory(address: .max, count: .max)) {
      $0.add([.init(address: .max, count: .max)])
    },
    Case("in ROM", .bufferOutsideMemory(address: 0xFFFF_F000, count: 1)) {
      $0.add([.init(address: 0xFFFF_F000, count: 1, isWritten: true)])
    },
    Case("more than 4 GiB", .chainBytes) {
      // 5000 times 15 MiB in a table of its own
      for index in UInt16(0)..<5000 {
        $0.setDescriptor(
          index, address: 0x1_0000_0000, count: 0xF0_0000, flags: next, next: index + 1,
          table: 0x1_0000_0000)
      }
      $0.setDescriptor(0, address: 0x1_0000_0000, count: 16 * 5000, flags: indirect)
      $0.offer(0)
    },
    Case("readable after writable", .readableAfterWritable) {
      $0.add([
        .init(address: 0x8000, count: 1, isWritten: true), .init(address: 0x8000, count: 1),
      ])
    },
    Case("index jumps", .availableIndex(9, next: 0)) {
      $0.put(9 as UInt16, $0.addresses.available + 2)
    },
    Case("index goes back", .availableIndex(0xFFFF, next: 0)) {
      $0.put(0xFFFF as UInt16, $0.addresses.available + 2)
    },
    Case("indirect not agreed on", .unexpectedIndirect, features: [.version1]) {
      $0.addIndirect([.init(address: 0x8000, count: 1)], table: 0x7000)
    },
    Case("indirect in indirect", .unexpectedIndirect) {
      $0.setDescriptor(0, address: 0x8000, count: 16, flags: indirect, table: 0x7000)
      $0.setDescriptor(0, address: 0x7000, count: 16, flags: indirect)
      $0.offer(0)
    },
    Case("indirect with successor", .unexpectedIndirect) {
      $0.setDescriptor(0, address: 0x7000, count: 16, flags: indirect | next, next: 1)
      $0.offer(0)
    },
    Case("indirect of odd length", .indirectLength(17)) {
      $0.setDescriptor(0, address: 0x7000, count: 17, flags: indirect)
      $0.offer(0)
    },
    Case("indirect without length", .indirectLength(0)) {
      $0.setDescriptor(0, address: 0x7000, count: 0, flags: indirect)
      $0.offer(0)
    },
    Case("indirect beyond memory", .bufferOutsideMemory(address: 0xF_FFF0, count: 32)) {
      $0.setDescriptor(0, address: 0xF_FFF0, count: 32, flags: indirect)
      $0.offer(0)
    },
    Case("loop in indirect", .chainLength(2)) {
      $0.setDescriptor(0, address: 0, count: 1, flags: next, next: 1, table: 0x7000)
      $0.setDescriptor(1, address: 0, count: 1, flags: next, next: 0, table: 0x7000)
      $0.setDescriptor(0, address: 0x7000, count: 32, flags: indirect)
      $0.offer(0)
    },
    Case("next beyond indirect", .descriptorNumber(2, count: 2)) {
      $0.setDescriptor(0, address: 0, count: 1, flags: next, next: 2, table: 0x7000)
      $0.setDescriptor(0, address: 0x7000, count: 32, flags: indirect)
      $0.offer(0)
    },
  ]

  /// RAM below 1 MiB and above 4 GiB, ROM at the end of 4 GiB.
  private static func makeMemory() throws -> GuestMemory {
    try #require(
      GuestMemory(regions: [
        .init(start: 0, kind: .ram, mapping: .init(anonymous: 1 << 20)),
        .init(start: 0xFFFF_F000, kind: .rom, mapping: .init(anonymous: 4096)),
        .init(start: 0x1_0000_0000, kind: .ram, mapping: .init(anonymous: 32 << 20)),
      ]))
  }

  @Test(arguments: cases) func `the device says what is wrong`(_ hostile: Case) throws {
    let memory = try Self.makeMemory()
    let driver = DriverQueue(memory, size: 8, at: 0x1000)
    let queue = try VirtQueue(
      index: 1, size: 8, addresses: driver.addresses, features: hostile.features, memory: memory)
    hostile.spoil(driver)
    var chain = DescriptorChain()

    #expect(throws: RingFault(queue: 1, hostile.cause)) { try queue.next(&chain) }
  }

  @Test func `rings that are not in memory or not aligned are refused`() throws {
    let memory = try Self.makeMemory()
    func open(_ size: UInt16, _ a: UInt64, _ b: UInt64, _ c: UInt64) throws {
      _ = try VirtQueue(
        index: 0, size: size, addresses: .init(descriptors: a, available: b, used: c),
        features: [.version1], memory: memory)
    }

    for size: UInt16 in [0, 3, 0xFFFF, 65535] {
      #expect(throws: RingFault(queue: 0, .size(size))) { try open(size, 0, 0, 0) }
    }
    for (a, b, c, bad) in [(8, 0, 0, 8), (0, 1, 0, 1), (0, 0, 2, 2)]
      as [(
        UInt64, UInt64, UInt64, UInt64
      )]
    {
      #expect(throws: RingFault(queue: 0, .misaligned(bad))) { try open(8, a, b, c) }
    }
    for bad: UInt64 in [0xF_FFF0, 0xFFFF_F000, 0xFFFF_FFFF_FFFF_FFF0] {
      #expect(throws: RingFault(queue: 0, .ringOutsideMemory(bad))) { try open(8, bad, 0, 0) }
      #expect(throws: RingFault(queue: 0, .ringOutsideMemory(bad))) { try open(8, 0, bad, 0) }
      #expect(throws: RingFault(queue: 0, .ringOutsideMemory(bad))) { try open(8, 0, 0, bad) }
    }
  }

  @Test(arguments: [1 as UInt64, 2, 3, 4])
  func `rings of random bits never trap, and never lead out of memory`(seed: UInt64) throws {
    var random = SplitMix(seed)
    let memory = try GuestMemory(ramSize: 64 << 10)
    var chains = 0
    let rounds = Trials.rounds(3000)
    for _ in 0..<rounds {
      let driver = DriverQueue(memory, size: 8, at: 0x1000)
      for index in UInt16(0)..<32 {
        // The last 24 are the indirect table's.
        driver.setDescriptor(
          index < 8 ? index : index - 8,
          address: Bool.random(using: &random)
            ? 0x7000 : random.next() >> UInt64.random(in: 44...63, using: &random),
          count: Bool.random(using: &random)
            ? 16 * UInt32.random(in: 0...24, using: &random)
            : UInt32(
              truncatingIfNeeded: random.next() >> UInt64.random(in: 32...60, using: &random)),
          flags: UInt16.random(in: 0...7, using: &random),
          next: UInt16.random(in: 0...9, using: &random), table: index < 8 ? nil : 0x7000)
      }
      let queue = try VirtQueue(
        index: 0, size: 8, addresses: driver.addresses, features: [.version1, .indirect],
        memory: memory)
      for head in UInt16(0)..<8 { driver.offer(head) }
      var chain = DescriptorChain()
      while (try? queue.next(&chain)) == true {
        chains += 1
        #expect(chain.readable.count + chain.writable.count <= 8 + 24)
        #expect(chain.readable.reduce(0) { $0 + $1.count } == chain.readableCount)
        for view in chain.writable where view.count > 0 { view.store(0 as UInt8, view.count - 1) }
        queue.complete(chain.head, written: 0)
      }
    }
    #expect(chains > rounds / 30, "the mutations hit too hard to say anything")
  }
}

private final class NoSignals: QueueSignals {
  func wake(queue index: Int) {}
  func requestsDone(queue: Int) -> DeviceInterrupt { .none }
}
