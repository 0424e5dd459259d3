import Host
import Memory
import Storage

@testable import Devices

/// Lets the virtio devices loose on arbitrary requests, one queue at a time, without threads.
///
/// The input: a byte that chooses the device, a byte that chooses its queue and features, and then
/// guest memory from 0 on: 8 descriptors, at 0x100 the available ring, at 0x200 the used ring.
@_cdecl("LLVMFuzzerTestOneInput")
public func virtioFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard input.count > 2, let worker, let reports,
    let memory = try? GuestMemory(ramSize: 65536)
  else { return 0 }
  let contents = Array(input[2...].prefix(65536))
  try? memory.write(contents.span, at: 0)
  let device: any VirtioDevice =
    switch input[0] % 5 {
    case 0: VirtioBlock(Disk(isReadOnly: false), serial: "fuzz")
    case 1: VirtioBlock(Disk(isReadOnly: true))
    case 2: VirtioEntropy()
    case 3: VirtioConsole(sink: Sink())
    default: VirtioBalloon(memory: memory)
    }
  var features = device.features.union([.version1, .indirect])
  if input[1] & 0x10 != 0 { features.insert(.eventIndex) }
  if input[1] & 0x20 != 0 { features.subtract(.bit(1)) }
  if input[1] & 0x40 != 0 { features.subtract(.bit(9)) }
  let index = Int(input[1] & 15) % device.queueSizes.count
  let signals = VirtioSignals(
    doorbells: doorbells, interrupts: Interrupts(), worker: worker, reports: reports, label: "fuzz")
  device.connect(to: signals)
  if let console = device as? VirtioConsole { _ = console.receive([1, 2, 3, 4, 5].span) }
  let addresses = VirtQueue.Addresses(descriptors: 0, available: 0x100, used: 0x200)
  guard
    let ring = try? VirtQueue(
      index: index, size: 8, addresses: addresses, features: features, memory: memory)
  else { preconditionFailure("a sound ring was refused") }
  let queue = ActiveQueue(
    ring, features: features, signals: signals, counters: QueueCounters())
  for _ in 0..<2 { _ = queue.takeTurn { try? device.serve(queue) } }
  device.stopped(queue: index)
  var state = StateWriter()
  device.save(to: &state)
  device.reset()
  do {
    try device.restore(from: StateReader(state.bytes), features)
  } catch { preconditionFailure("its own state was refused: \(error)") }
  var again = StateWriter()
  device.save(to: &again)
  precondition(again.bytes == state.bytes, "it has another state than the one that it took")
  if let anything = try? StateReader(contents) { try? device.restore(from: anything, features) }
  device.reset()
  return 0
}

private let worker = try? Worker(name: "fuzz")
private let reports = try? DeviceReports()
private let doorbells = (try? (0..<4).map { _ in try Doorbell(width: 2) }) ?? []

private final class Interrupts: VirtioInterrupts {
  func signal(queue: Int) -> DeviceInterrupt { .none }
  func signalConfiguration() -> DeviceInterrupt { .none }
  func reset() {}
}

private final class Sink: ByteSink {
  func write(_ bytes: Span<UInt8>) {}
}

/// A disk that traps at what a device must not ask of it.
private final class Disk: BlockStore {
  let size: UInt64 = 64 * 512
  let isReadOnly: Bool

  init(isReadOnly: Bool) { self.isReadOnly = isReadOnly }

  private func check(_ offset: UInt64, _ count: UInt64, isWrite: Bool) {
    precondition(offset % 512 == 0 && count % 512 == 0, "not whole sectors")
    precondition(offset <= size && count <= size - offset, "beyond the disk")
    precondition(!isWrite || !isReadOnly, "a write to what can only be read")
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    check(offset, segments.reduce(0) { $0 + UInt64($1.count) }, isWrite: false)
    for segment in segments { segment.store(7 as UInt8, segment.count - 1) }
  }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    check(offset, segments.reduce(0) { $0 + UInt64($1.count) }, isWrite: true)
    for segment in segments { _ = segment.load(segment.count - 1, as: UInt8.self) }
  }
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    check(offset, count, isWrite: true)
  }
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    check(offset, count, isWrite: true)
  }
}
