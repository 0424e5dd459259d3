import Host
import Memory
import Network
import Synchronization
import TestSupport
import Testing

@testable import Devices

/// Waits until a worker has seen to all that was raised before.
private final class Fence: Sendable {
  private let event: Event
  private let passed = Guarded(0)

  init(_ worker: Worker) throws {
    event = try Event()
    try worker.watch(event) { [passed] in
      passed.locked { $0 += 1 }
      passed.wakeAll()
    }
  }

  func pass() {
    // What is raised by what was raised comes too.
    for _ in 0..<3 {
      let before = passed.locked { $0 }
      event.raise()
      let deadline = Deadline(seconds: 30).nanoseconds
      #expect(passed.waits(until: deadline) { $0 > before }, "a worker is stuck")
    }
  }
}

extension VirtioCore {
  /// Pauses the device, and waits until it stands still.
  func standStill() {
    let isStill = Guarded(false)
    pause {
      isStill.locked { $0 = true }
      isStill.wakeAll()
    }
    let deadline = Deadline(seconds: 30).nanoseconds
    #expect(isStill.waits(until: deadline) { $0 }, "the device doesn't stand still")
  }

  /// Runs `body` while the device stands still.
  func whileStill<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    standStill()
    defer { resume() }
    return try body()
  }
}

/// A virtio device on MMIO with a driver that mostly does what it should.
private final class VirtioSubject: StateSubject, Stateful, @unchecked Sendable {
  // Sound as Sendable: one test has it.
  private let guest: MMIODriver
  private let fences: [Fence]
  private let make: Device
  private var edges = 0
  private static let data: UInt64 = 0x8_0000

  /// What is to be tested.
  class Device {
    var virtio: any VirtioDevice { fatalError("no device") }
    /// What the driver's request says, which has this one's first bytes.
    func header(queue: Int, _ random: inout SplitMix) -> [UInt8] { [1, 2, 3, 4] }
    func host(_ random: inout SplitMix) -> [UInt64] { [] }
    func heard() -> [String] { [] }
    func takeWorld(of other: Device) {}
  }

  init(_ device: Device) throws {
    make = device
    guest = try MMIODriver(device.virtio, memory: GuestMemory(ramSize: 1 << 20))
    fences = try (guest.device.core.workers + [guest.worker]).map(Fence.init)
  }

  deinit { guest.stop() }

  var device: any Stateful { self }
  var levels: [Bool] { [guest.line.isRaised] }

  func heard() -> [String] {
    defer { edges = guest.line.edges }
    return make.heard() + ["\(guest.line.edges - edges) edges"]
  }

  func takeWorld(of other: VirtioSubject) {
    guard let bytes = try? other.guest.memory.read(1 << 20, at: 0) else { return }
    try? guest.memory.write(bytes.span, at: 0)
    guest.takeOver(other.guest)
    make.takeWorld(of: other.make)
  }

  private static let registers: [UInt64] = [
    0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90, 0xA0, 0xC0,
    0xFC, 0x100, 0x104, 0x108,
  ]

  func operate(_ random: inout SplitMix) -> [UInt64] {
    var answers: [UInt64] = []
    let register = Self.registers.randomElement(using: &random) ?? 0
    switch Int.random(in: 0..<16, using: &random) {
    case 0: guest.start(without: random.next() & 1 == 0 ? .eventIndex : [])
    case 1: answers.append(guest.device.read(offset: register, width: 4))
    case 2:
      let value = [0, 1, 3, 8, 15, 64, 0x1_0000, 0xFFFF_FFFF].randomElement(using: &random) ?? 0
      guest.device.write(offset: register, width: 4, value: UInt64(value))
    case 3: guest[0x64] = 3
    case 4..<7: answers += make.host(&random)
    default: request(&random)
    }
    for fence in fences { fence.pass() }
    return answers + guest.queues.map { UInt64($0.usedIndex) }
      + [UInt64(guest.status), UInt64(guest[0x60]), UInt64(guest[0xFC])]
  }

  private func request(_ random: inout SplitMix) {
    guard let index = guest.queues.indices.randomElement(using: &random) else { return }
    let queue = guest.queues[index]
    let header = make.header(queue: index, &random)
    let count = UInt32.random(in: 1...3000, using: &random)
    guard queue.nextAvailable &- queue.usedIndex < 4 else { return guest.ring(index) }
    let place = Self.data + UInt64(index) << 16 + UInt64(queue.nextAvailable & 3) << 14
    queue.write(header, at: place)
    var buffers: [DriverQueue.Buffer] = []
    if !header.isEmpty { buffers.append(.init(address: place, count: UInt32(header.count))) }
    if random.next() & 3 != 0 || header.isEmpty {
      buffers.append(.init(address: place + 0x1000, count: count, isWritten: true))
    }
    queue.add(buffers)
    guest.ring(index)
  }

  // MARK: The device

  func reset() { guest.device.core.whileStill { guest.device.reset() } }

  func save(to state: inout StateWriter) {
    guest.device.core.whileStill { guest.device.save(to: &state) }
  }

  func restore(from state: StateReader) throws(StateError) {
    try guest.device.core.whileStill { () throws(StateError) in
      try guest.device.restore(from: state)
    }
    for fence in fences { fence.pass() }
  }
}

// MARK: - Devices

private final class BlockSubject: VirtioSubject.Device {
  private let disk = MemoryDisk(sectors: 64)
  private let device: VirtioBlock
  override init() { device = VirtioBlock(disk, serial: "disk", queueCount: 2) }
  override var virtio: any VirtioDevice { device }

  override func header(queue: Int, _ random: inout SplitMix) -> [UInt8] {
    let kind = [0, 0, 1, 1, 4, 8, 99].randomElement(using: &random) ?? 0
    let sector = UInt8.random(in: 0..<70, using: &random)
    let data = [UInt8](repeating: sector, count: kind == 1 ? 512 : 0)
    return [UInt8(kind), 0, 0, 0, 0, 0, 0, 0, sector, 0, 0, 0, 0, 0, 0, 0] + data
  }

  override func heard() -> [String] { ["\(disk.bytes.hashValue)"] }

  override func takeWorld(of other: VirtioSubject.Device) {
    if let other = other as? BlockSubject { disk.bytes = other.disk.bytes }
  }
}

private final class EntropySubject: VirtioSubject.Device {
  private let device = VirtioEntropy()
  override var virtio: any VirtioDevice { device }
  override func header(queue: Int, _ random: inout SplitMix) -> [UInt8] { [] }
}

private final class ConsoleSubject: VirtioSubject.Device {
  private let sink = RecordingSink()
  private var told = 0
  private let device: VirtioConsole
  override init() { device = VirtioConsole(sink: sink) }
  override var virtio: any VirtioDevice { device }
  override func heard() -> [String] {
    let bytes = sink.bytes
    defer { told = bytes.count }
    return ["\(bytes[told...])"]
  }

  override func header(queue: Int, _ random: inout SplitMix) -> [UInt8] {
    queue == 0 ? [] : Array("hello \(random.next())".utf8)
  }

  override func host(_ random: inout SplitMix) -> [UInt64] {
    let bytes = [UInt8](repeating: 7, count: Int.random(in: 1...600, using: &random))
    return [UInt64(device.receive(bytes.span))]
  }

  override func takeWorld(of other: VirtioSubject.Device) {
    // A reset leaves input to the guest, as its sender will not send it again.
    guard let other = other as? ConsoleSubject, device.unread.isEmpty else { return }
    _ = device.receive(other.device.unread.span)
  }
}

private final class BalloonSubject: VirtioSubject.Device {
  private let device: VirtioBalloon
  override init() {
    // Memory of its own: what goes back would be gone from the rings else.
    guard let memory = try? GuestMemory(ramSize: 1 << 20) else { fatalError("no memory") }
    device = VirtioBalloon(memory: memory)
  }
  override var virtio: any VirtioDevice { device }

  override func header(queue: Int, _ random: inout SplitMix) -> [UInt8] {
    queue == 3 ? [] : (0..<20).map { _ in UInt8.random(in: 0...3, using: &random) }
  }

  override func host(_ random: inout SplitMix) -> [UInt64] {
    device.requestStatistics()
    return [device.size]
  }
}

private final class NetSubject: VirtioSubject.Device {
  private let network: TestNetwork
  private let device: VirtioNet
  override init() {
    guard let network = try? TestNetwork([.checksum, .tcp4], queueCount: 2),
      let device = try? VirtioNet(network, mac: MACAddress(stableFor: "test"))
    else { fatalError("no network") }
    (self.network, self.device) = (network, device)
  }
  override var virtio: any VirtioDevice { device }

  override func header(queue: Int, _ random: inout SplitMix) -> [UInt8] {
    switch queue {
    case 4: Self.commands.randomElement(using: &random) ?? []
    case 1, 3: [UInt8](repeating: 0, count: 12 + 60)
    default: []
    }
  }

  private static let commands: [[UInt8]] = [
    [1, 1, 2, 0, 0, 0, 0, 9], [4, 0, 2, 0], [4, 0, 1, 0], [5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
    [5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  ]

  override func host(_ random: inout SplitMix) -> [UInt64] {
    // No larger than the smallest buffer with its header.
    network.deliver([UInt8](repeating: 1, count: 20), queue: 0)
    return [UInt64(network.waiting)]
  }

  override func heard() -> [String] {
    [
      "\(network.sent.count) sent, \(network.waiting) wait", "\(network.allowed.last ?? [])",
      "\(network.activeQueues.last ?? 0)", "\(device.mac)",
    ]
  }

  override func takeWorld(of other: VirtioSubject.Device) {
    guard let other = other as? NetSubject else { return }
    let now = (network.allowed.last ?? [], network.activeQueues.last ?? 0)
    network.take(other.network)
    network.allow(now.0)
    network.setActiveQueues(now.1)
  }
}

@Suite(.limited) struct VirtioStateTests {
  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `a disk`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 100, rounds: 3) { try VirtioSubject(BlockSubject()) }
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `an entropy source`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 100, rounds: 3) {
      try VirtioSubject(EntropySubject())
    }
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `a console`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 100, rounds: 3) {
      try VirtioSubject(ConsoleSubject())
    }
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `a balloon`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 100, rounds: 3) {
      try VirtioSubject(BalloonSubject())
    }
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `a network card`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 100, rounds: 3) { try VirtioSubject(NetSubject()) }
  }
}
