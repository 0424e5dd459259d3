// swift-format-ignore-file: NeverUseForceTry
// Memory that isn't there is the test's own mistake.

import Devices
import Host
import Memory
import Synchronization
import TestSupport
import Testing

/// An interrupt line that a test can wait at.
final class WaitingLine: InterruptLine {
  private let monitor = Monitor()
  private let count = Mutex(0)
  private let level = Mutex(false)

  func set(_ isRaised: Bool) {
    monitor.locked {
      level.withLock { $0 = isRaised }
      if isRaised { count.withLock { $0 += 1 } }
      monitor.wakeAll()
    }
  }

  var isRaised: Bool { level.withLock { $0 } }
  var edges: Int { count.withLock { $0 } }
}

/// Waits until `condition` holds, by looking again and again; false after 30 seconds.
func waitUntil(_ condition: () -> Bool) -> Bool {
  let deadline = Deadline(seconds: 30).nanoseconds
  while !condition() {
    if Clock.monotonicNanoseconds > deadline { return false }
    HostThread.yield()
  }
  return true
}

/// A machine of memory, a work worker and one device on MMIO, with the driver's moves.
final class MMIODriver {
  let memory: GuestMemory
  let worker: Worker
  let device: VirtioMMIO
  let line = WaitingLine()
  let reports: Reports
  private(set) var queues: [DriverQueue] = []
  /// Free memory for buffers.
  static let buffers: UInt64 = 0x20_0000

  /// What was reported, and kept after it was looked at.
  final class Reports: Sendable {
    let reports: DeviceReports
    private let log = Mutex<[String]>([])

    init() throws { reports = try DeviceReports() }

    var all: [String] {
      log.withLock { log in
        log += reports.drain()
        return log
      }
    }

    /// The same, once there are so many.
    func wait(for count: Int) -> [String] {
      _ = waitUntil { all.count >= count }
      return all
    }
  }

  init(
    _ virtio: any VirtioDevice, memory: GuestMemory? = nil, observation: DeviceObservation? = nil
  ) throws {
    self.memory = try memory ?? GuestMemory(ramSize: 4 << 20)
    worker = try Worker(name: "test")
    reports = try Reports()
    device = try VirtioMMIO(
      virtio,
      .init(
        memory: self.memory, worker: worker, reports: reports.reports, observation: observation),
      line: line)
  }

  /// Ends all threads.
  func stop() {
    device.core.stop()
    worker.stop()
  }

  subscript(_ offset: UInt64) -> UInt32 {
    get { UInt32(truncatingIfNeeded: device.read(offset: offset, width: 4)) }
    set { device.write(offset: offset, width: 4, value: UInt64(newValue)) }
  }

  var status: UInt32 { self[0x70] }

  /// Agrees on all that is offered but `without`, and puts queue n at n + 1 times 64 KiB.
  func start(size: UInt16 = 16, without: VirtioFeatures = []) {
    self[0x70] = 0
    // A reset is over when the status says so (virtio 1.2, 2.4.2 and 4.2.2.2).
    #expect(waitUntil { self[0x70] == 0 })
    self[0x70] = 1
    self[0x70] = 3
    for select in UInt32(0)..<2 {
      self[0x14] = select
      self[0x24] = select
      self[0x20] = self[0x10] & ~UInt32(truncatingIfNeeded: without.rawValue >> UInt64(32 * select))
    }
    self[0x70] = 11
    queues = []
    for index in device.core.device.queueSizes.indices { addQueue(index, size) }
    self[0x70] = 15
  }

  /// Goes on with the queues of `other`, whose memory was copied.
  func takeOver(_ other: MMIODriver) {
    queues = other.queues.map { DriverQueue(resuming: $0, in: memory) }
  }

  @discardableResult
  func addQueue(_ index: Int, _ size: UInt16) -> DriverQueue {
    let base = UInt64(index + 1) << 16
    try! memory.write([UInt8](repeating: 0, count: 65536).span, at: GuestAddress(base))
    let queue = DriverQueue(memory, size: size, at: base)
    setUp(index, size: UInt32(size), queue.addresses)
    if index < queues.count { queues[index] = queue } else { queues.append(queue) }
    return queue
  }

  func setUp(_ index: Int, size: UInt32, _ addresses: VirtQueue.Addresses) {
    self[0x30] = UInt32(index)
    self[0x38] = size
    for (offset, address) in [
      (0x80 as UInt64, addresses.descriptors), (0x90, addresses.available), (0xA0, addresses.used),
    ] {
      self[offset] = UInt32(truncatingIfNeeded: address)
      self[offset + 4] = UInt32(truncatingIfNeeded: address >> 32)
    }
    self[0x44] = 1
  }

  func ring(_ queue: Int = 0) { self[0x50] = UInt32(queue) }

  /// Rings, and returns the next request that comes back.
  func complete(_ queue: Int = 0) throws -> (head: UInt32, written: UInt32) {
    ring(queue)
    return try next(queue)
  }

  func next(_ queue: Int = 0) throws -> (head: UInt32, written: UInt32) {
    let ring = queues[queue]
    #expect(waitUntil { ring.usedIndex != ring.nextUsed }, "nothing came back")
    return try #require(ring.takeUsed())
  }
}
