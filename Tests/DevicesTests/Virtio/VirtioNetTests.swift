import Devices
import Memory
import Network
import TestSupport
import Testing

@Suite(.limited) struct VirtioNetTests {
  private static let all: NetworkOffloads = [.checksum, .tcp4, .tcp6, .congestion, .udp]
  private static let mac = MACAddress(stableFor: "test")
  private static let mergeable = VirtioFeatures.bit(15)
  private let data = MMIODriver.buffers

  private func driver(
    _ network: TestNetwork, mtu: UInt16? = nil
  ) throws -> MMIODriver {
    try MMIODriver(try VirtioNet(network, mac: Self.mac, mtu: mtu))
  }

  private func header(
    flags: UInt8 = 0, segmentation: UInt8 = 0, length: UInt16 = 0, size: UInt16 = 0,
    start: UInt16 = 0, offset: UInt16 = 0
  ) -> [UInt8] {
    [flags, segmentation]
      + [length, size, start, offset, 0].flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }
  }

  private func frame(_ count: Int, _ seed: UInt8 = 1) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) &+ seed }
  }

  /// Lets the guest send one frame.
  private func send(_ driver: MMIODriver, _ bytes: [UInt8], queue: Int = 1) throws {
    driver.queues[queue].write(bytes, at: data)
    driver.queues[queue].add([.init(address: data, count: UInt32(bytes.count))])
    _ = try driver.complete(queue)
  }

  private func post(_ driver: MMIODriver, _ sizes: [UInt32], queue: Int = 0) {
    for (index, size) in sizes.enumerated() {
      driver.queues[queue].add([
        .init(address: data + UInt64(index) * 0x2_0000, count: size, isWritten: true)
      ])
    }
    driver.ring(queue)
  }

  // MARK: Features and configuration

  @Test func `offloads are offered as far as the back end has them`() throws {
    let plain = try VirtioNet(TestNetwork(), mac: Self.mac)
    for bit in [0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 14, 22] {
      #expect(plain.features.isDisjoint(with: .bit(bit)), "feature \(bit)")
    }
    let full = try VirtioNet(TestNetwork(Self.all, queueCount: 3), mac: Self.mac)
    for bit in [0, 1, 2, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 22, 23] {
      #expect(full.features.contains(.bit(bit)), "feature \(bit)")
    }
    #expect(full.queueSizes.count == 7)
  }

  @Test(
    "a feature without those that it needs is refused",
    arguments: [[1], [0], [7, 8, 10], [11, 12], [17]])
  func dependencies(missing: [Int]) throws {
    let driver = try driver(TestNetwork(Self.all, queueCount: 2))
    defer { driver.stop() }
    driver.start(without: VirtioFeatures(missing.map(VirtioFeatures.bit)))
    #expect(driver.status & 8 == 0)
  }

  @Test func `the configuration has address, link, pairs and MTU`() throws {
    let driver = try driver(TestNetwork(queueCount: 2), mtu: 1400)
    defer { driver.stop() }
    let bytes = (0..<12).map { UInt8(driver.device.read(offset: 0x100 + $0, width: 1)) }
    #expect(bytes == Self.mac.bytes + [1, 0, 2, 0, 0x78, 5])
  }

  @Test func `the back end learns which offloads the guest takes, and forgets them by a reset`()
    throws
  {
    let network = try TestNetwork(Self.all)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start(without: [.bit(8), .bit(10), .bit(9)])
    #expect(waitUntil { network.allowed.last == [.checksum, .tcp4] })
    driver[0x70] = 0
    #expect(waitUntil { network.allowed.last == [] })
    #expect(network.activeQueues.last == 1)
  }

  // MARK: From the guest

  @Test func `a frame goes out whole, in however many buffers it comes`() throws {
    let network = try TestNetwork(Self.all)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    let bytes = header(flags: 1, start: 34, offset: 6) + frame(300)
    driver.queues[1].write(bytes, at: data)
    driver.queues[1].add([
      .init(address: data, count: 5), .init(address: data + 5, count: 100),
      .init(address: data + 105, count: 207),
    ])
    #expect(try driver.complete(1).written == 0)
    #expect(
      network.sent == [
        .init(header: header(flags: 1, start: 34, offset: 6), frame: frame(300), queue: 0)
      ])
  }

  @Test func `large frames go out for the back end to cut, with a hint that it can trust`() throws {
    let network = try TestNetwork(Self.all)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    try send(
      driver,
      header(flags: 1, segmentation: 0x81, length: 0xFFFF, size: 1448, start: 34, offset: 16)
        + frame(60000))
    #expect(
      network.sent.first?.header
        == header(flags: 1, segmentation: 0x81, length: 60000, size: 1448, start: 34, offset: 16))
    #expect(network.sent.first?.frame == frame(60000))
  }

  static let hostile: [(name: String, header: [UInt8], count: Int)] = [
    ("a checksum behind the end", [1, 0, 0, 0, 0, 0, 90, 0, 9, 0, 0, 0], 100),
    ("a checksum far behind the end", [1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0], 100),
    ("a segment size of 0", [1, 1, 54, 0, 0, 0, 34, 0, 16, 0, 0, 0], 1000),
    ("segments without checksum", [0, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0], 1000),
    ("an unknown kind of segments", [1, 7, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0], 1000),
    ("congestion without segments", [1, 0x80, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0], 1000),
    ("less than an Ethernet header", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 13),
    ("nothing", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0),
    ("more than any packet", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 65554),
  ]

  @Test("a frame that makes no sense is dropped, and the next one goes", arguments: hostile)
  func isDropped(name: String, header: [UInt8], count: Int) throws {
    let network = try TestNetwork(Self.all)
    let card = try VirtioNet(network, mac: Self.mac)
    let driver = try MMIODriver(card)
    defer { driver.stop() }
    driver.start()
    try send(driver, header + frame(count))
    try send(driver, self.header() + frame(60))
    #expect(network.sent.map(\.frame) == [frame(60)], "\(name)")
    #expect(card.droppedFrames == 1)
  }

  @Test func `offloads that were not agreed on are dropped, and flags that nobody knows ignored`()
    throws
  {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    try send(driver, header(flags: 1, start: 34, offset: 6) + frame(100))
    try send(
      driver, header(flags: 1, segmentation: 1, size: 100, start: 34, offset: 6) + frame(100))
    try send(driver, header(flags: 0xFE, length: 9, size: 9, start: 9, offset: 9) + frame(80))
    #expect(network.sent == [.init(header: header(), frame: frame(80), queue: 0)])
  }

  @Test func `a frame without a whole header breaks the device`() throws {
    let driver = try driver(TestNetwork())
    defer { driver.stop() }
    driver.start()
    driver.queues[1].add([.init(address: data, count: 11)])
    driver.ring(1)
    #expect(waitUntil { driver.status & 64 != 0 })
  }

  // MARK: To the guest

  @Test func `a frame fills as many buffers as it needs, and the driver sees them at once`() throws
  {
    let network = try TestNetwork(Self.all)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    post(driver, [1000, 1000])
    network.deliver(frame(2500), header: header(flags: 1, segmentation: 1, size: 1400))
    // Two are too few, and nothing is shown before there is enough.
    #expect(waitUntil { network.waiting == 0 })
    #expect(driver.queues[0].usedIndex == 0)
    driver.queues[0].add([.init(address: data + 0x4_0000, count: 1000, isWritten: true)])
    driver.ring(0)

    #expect(waitUntil { driver.queues[0].usedIndex != 0 })
    #expect(driver.queues[0].usedIndex == 3)
    #expect(try (0..<3).map { _ in try driver.next(0).written } == [1000, 1000, 512])
    let queue = driver.queues[0]
    let got =
      queue.bytes(1000, at: data) + queue.bytes(1000, at: data + 0x2_0000)
      + queue.bytes(512, at: data + 0x4_0000)
    #expect(Array(got[12...]) == frame(2500))
    #expect(Array(got[..<12]) == header(flags: 1, segmentation: 1, size: 1400)[..<10] + [3, 0])
  }

  @Test func `frames wait in the back end until there is a buffer`() throws {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    network.deliver(frame(60, 1))
    network.deliver(frame(60, 2))
    post(driver, [1526])
    #expect(try driver.next(0).written == 72)
    #expect(driver.queues[0].bytes(60, at: data + 12) == frame(60, 1))
    #expect(network.waiting == 1)
    post(driver, [1526])
    #expect(try driver.next(0).written == 72)
    #expect(driver.queues[0].bytes(60, at: data + 12) == frame(60, 2))
  }

  @Test func `without mergeable buffers what doesn't fit is dropped`() throws {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start(without: Self.mergeable)
    post(driver, [100])
    network.deliver(frame(200))
    network.deliver(frame(88))
    #expect(try driver.next(0).written == 100)
    #expect(driver.queues[0].bytes(88, at: data + 12) == frame(88))
    #expect(driver.queues[0].bytes(2, at: data + 10) == [1, 0])
  }

  @Test func `what the guest did not agree to never reaches it`() throws {
    let network = try TestNetwork(Self.all)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start(without: [.bit(1), .bit(7), .bit(8), .bit(9), .bit(10)])
    post(driver, [1526])
    network.deliver(frame(90), header: header(flags: 1, segmentation: 1, size: 50))
    network.deliver(frame(91), header: header(flags: 1))
    network.deliver(frame(92), header: header(flags: 2))
    #expect(try driver.next(0).written == 104)
    #expect(driver.queues[0].bytes(12, at: data) == header()[..<10] + [1, 0])
  }

  @Test func `a buffer without room for a header breaks the device`() throws {
    let driver = try driver(TestNetwork())
    defer { driver.stop() }
    driver.start()
    post(driver, [11])
    #expect(waitUntil { driver.status & 64 != 0 })
  }

  @Test func `a stream of frames arrives whole and in order`() throws {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    post(driver, [UInt32](repeating: 200, count: 8))
    for number in 0..<2000 {
      network.deliver(frame(100 + number % 300, UInt8(truncatingIfNeeded: number)))
    }
    var received: [[UInt8]] = []
    let queue = driver.queues[0]
    while received.count < 2000 {
      var bytes: [UInt8] = []
      var left = 1
      repeat {
        let part = try driver.next(0)
        let address = queue.get(
          queue.addresses.descriptors + 16 * UInt64(part.head), as: UInt64.self)
        let content = queue.bytes(Int(part.written), at: address)
        try #require(content.count >= 12 || !bytes.isEmpty)
        if bytes.isEmpty { left = Int(content[10]) | Int(content[11]) << 8 }
        bytes += content
        left -= 1
        queue.add([.init(address: address, count: 200, isWritten: true)])
        driver.ring(0)
      } while left > 0
      received.append(Array(bytes.dropFirst(12)))
    }
    for number in 0..<2000 {
      let seed = UInt8(truncatingIfNeeded: number)
      #expect(received[number] == frame(100 + number % 300, seed), "frame \(number)")
    }
  }

  @Test func `when the back end ends, the cable is out and the user is told`() throws {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    post(driver, [1526])
    network.end()
    #expect(waitUntil { driver.device.read(offset: 0x106, width: 2) == 0 })
    #expect(waitUntil { driver[0x60] & 2 != 0 })
    #expect(driver.reports.wait(for: 1) == ["virtio-net: the test's network has ended"])
    try send(driver, header() + frame(60))
    #expect(driver.status & 64 == 0)
  }

  // MARK: Control

  private func command(_ driver: MMIODriver, _ bytes: [UInt8], queue: Int) throws -> UInt8 {
    let control = driver.queues[queue]
    control.write(bytes, at: data)
    control.put(0xEE as UInt8, data + 0x1000)
    control.add([
      .init(address: data, count: 2), .init(address: data + 2, count: UInt32(bytes.count - 2)),
      .init(address: data + 0x1000, count: 1, isWritten: true),
    ])
    #expect(try driver.complete(queue).written == 1)
    return control.get(data + 0x1000, as: UInt8.self)
  }

  @Test func `the control queue sets pairs, address and offloads, and refuses the rest`() throws {
    let network = try TestNetwork(Self.all, queueCount: 2)
    let card = try VirtioNet(network, mac: Self.mac)
    let driver = try MMIODriver(card)
    defer { driver.stop() }
    driver.start()
    #expect(try command(driver, [4, 0, 2, 0], queue: 4) == 0)
    #expect(network.activeQueues.last == 2)
    for pairs in [0, 3, 255] as [UInt8] {
      #expect(try command(driver, [4, 0, pairs, 0], queue: 4) == 1, "\(pairs) pairs")
    }
    #expect(try command(driver, [4, 0, 1], queue: 4) == 1)
    #expect(try command(driver, [1, 1, 2, 0, 0, 0, 0, 9], queue: 4) == 0)
    #expect(card.mac == MACAddress("02:00:00:00:00:09"))
    #expect(try command(driver, [1, 1, 3, 0, 0, 0, 0, 9], queue: 4) == 1, "a group's address")
    #expect(try command(driver, [5, 0, 2, 0, 0, 0, 0, 0, 0, 0], queue: 4) == 0)
    #expect(network.allowed.last == [.checksum])
    #expect(try command(driver, [5, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], queue: 4) == 1)
    #expect(try command(driver, [5, 0, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0], queue: 4) == 1)
    for kind in [0, 2, 3, 9] as [UInt8] {
      #expect(try command(driver, [kind, 0, 1], queue: 4) == 1, "class \(kind)")
    }
  }

  @Test func `with several pairs each has its own frames`() throws {
    let network = try TestNetwork(queueCount: 2)
    let driver = try driver(network)
    defer { driver.stop() }
    driver.start()
    post(driver, [200], queue: 2)
    network.deliver(frame(50), queue: 1)
    #expect(try driver.next(2).written == 62)
    try send(driver, header() + frame(70), queue: 3)
    #expect(network.sent.map(\.queue) == [1])
  }

  @Test func `without several pairs the control queue is the third`() throws {
    let driver = try driver(TestNetwork(queueCount: 2))
    defer { driver.stop() }
    driver.start(without: .bit(22))
    #expect(try command(driver, [1, 1, 2, 0, 0, 0, 0, 9], queue: 2) == 0)
    #expect(try command(driver, [4, 0, 1, 0], queue: 2) == 1)
  }

  @Test func `resets under traffic leave a card that works`() throws {
    let network = try TestNetwork()
    let driver = try driver(network)
    defer { driver.stop() }
    for round in 0..<50 {
      driver.start()
      post(driver, [300, 300])
      for _ in 0..<5 { network.deliver(frame(80, UInt8(round))) }
      driver[0x70] = 0
      #expect(waitUntil { driver.status == 0 })
    }
    driver.start()
    while network.waiting > 0 {
      post(driver, [300])
      _ = try driver.next(0)
    }
    try send(driver, header() + frame(60))
    #expect(network.sent.count == 1)
  }
}
