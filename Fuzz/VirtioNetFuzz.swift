import Host
import Memory
import Network

@testable import Devices

/// Lets a network card loose on arbitrary requests, one queue at a time, without threads. What reaches
/// the back end must be what its contract says.
///
/// The input: a byte that chooses the queue, a byte for the features, four bytes for what comes in, and
/// then guest memory from 0 on: 8 descriptors, at 0x100 the available ring, at 0x200 the used ring.
@_cdecl("LLVMFuzzerTestOneInput")
public func virtioNetFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard input.count > 6, let worker, let reports,
    let memory = try? GuestMemory(ramSize: 0x2_0000)
  else { return 0 }
  try? memory.write(Array(input[6...].prefix(0x2_0000)).span, at: 0)
  let network = FuzzNetwork(input)
  guard let mac = MACAddress([2, 0, 0, 0, 0, 1]), let card = try? VirtioNet(network, mac: mac)
  else { return 0 }
  var features = card.features.union([.version1, .indirect])
  if input[1] & 1 != 0 { features.insert(.eventIndex) }
  if input[1] & 2 != 0 { features.remove(NetFeature.mergeableBuffers) }
  if input[1] & 4 != 0 { features.remove(NetFeature.multiqueue) }
  if input[1] & 8 != 0 { features.subtract(VirtioFeatures(rawValue: 0x7F83)) }
  network.taken = NetFeature.hostOffloads(features)
  let index = Int(input[0]) % card.queueSizes.count
  let addresses = VirtQueue.Addresses(descriptors: 0, available: 0x100, used: 0x200)
  guard
    let ring = try? VirtQueue(
      index: index, size: 8, addresses: addresses, features: features, memory: memory)
  else { preconditionFailure("a sound ring was refused") }
  let queue = ActiveQueue(
    ring, features: features,
    signals: VirtioSignals(
      doorbells: doorbells, interrupts: Silence(), worker: worker, reports: reports, label: "fuzz"),
    counters: QueueCounters())
  for _ in 0..<3 { _ = queue.takeTurn { try? card.serve(queue) } }
  card.stopped(queue: index)
  var state = StateWriter()
  card.save(to: &state)
  card.reset()
  do { try card.restore(from: StateReader(state.bytes), features) } catch {
    preconditionFailure("its own state was refused: \(error)")
  }
  card.reset()
  return 0
}

private let worker = try? Worker(name: "fuzz")
private let reports = try? DeviceReports()

private let doorbells = (try? (0..<5).map { _ in try Doorbell(width: 2) }) ?? []

private final class Silence: VirtioInterrupts {
  func signal(queue: Int) -> DeviceInterrupt { .none }
  func signalConfiguration() -> DeviceInterrupt { .none }
  func reset() {}
}

/// Gives what the input says, and traps at what a card must not send. One thread uses it.
private final class FuzzNetwork: NetworkBackEnd, @unchecked Sendable {
  let name = "fuzz"
  let queueCount = 2
  let offloads: NetworkOffloads = [.checksum, .tcp4, .tcp6, .congestion, .udp]
  var taken: NetworkOffloads = []
  private let input: [UInt8]
  private var left = 40

  init(_ input: [UInt8]) { self.input = input }

  func allow(_ offloads: NetworkOffloads) {}
  func setActiveQueues(_ count: Int) { precondition((1...queueCount).contains(count)) }
  func inputDescriptor(queue: Int) -> Int32? { nil }

  func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    precondition(header.count == 12 && frame.reduce(0) { $0 + $1.count } == count)
    precondition(count >= NetworkFrame.shortest && count <= NetworkFrame.longest)
    precondition((0..<queueCount).contains(queue))
    let (flags, kind) = (header.load(0, as: UInt8.self), header.load(1, as: UInt8.self))
    precondition(flags & ~1 == 0 && [0, 1, 3, 4].contains(kind & 0x7F) && kind != 0x80)
    precondition(flags == 0 || taken.contains(.checksum))
    precondition(kind & 0x80 == 0 || taken.contains(.congestion))
    precondition(kind & 0x7F != 1 || taken.contains(.tcp4))
    precondition(kind & 0x7F != 4 || taken.contains(.tcp6))
    precondition(kind & 0x7F != 3 || taken.contains(.udp))
    let end = Int(header.load(6, as: UInt16.self)) + Int(header.load(8, as: UInt16.self)) + 2
    precondition(flags == 0 || end <= count)
    precondition(kind == 0 || (flags == 1 && header.load(4, as: UInt16.self) > 0))
    precondition(Int(header.load(2, as: UInt16.self)) <= count)
    return true
  }

  func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    precondition(buffer.count == NetworkFrame.bufferCount)
    left -= 1
    if left < 0 { return .nothing }
    buffer.store(input[2] & input[5], 0)
    buffer.store(input[3] & input[5], 1)
    let size = Int(input[4]) * (left % 3 == 0 ? 257 : 1)
    return .frame(min(12 + size, NetworkFrame.bufferCount))
  }
}
