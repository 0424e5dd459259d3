import Host
import Memory
import Network
import Synchronization

/// The sending half of a pair of queues (virtio 1.2, 5.1.6.2).
final class VirtioNetTransmitter: Sendable {
  private let backEnd: any NetworkBackEnd
  private let pair: Int
  private let sentCount = Atomic<UInt64>(0)
  private let droppedCount = Atomic<UInt64>(0)
  // The guest's own header could change after it was checked: this is what the back end gets. Used by
  // the queue's thread alone.
  private let header: MemoryView

  init(_ backEnd: any NetworkBackEnd, pair: Int) throws(Errno) {
    self.backEnd = backEnd
    self.pair = pair
    header = try MemoryView(scratch: VirtioNetHeader.count)
  }

  /// How many frames were sent.
  var sent: UInt64 { sentCount.load(ordering: .relaxed) }
  /// How many frames were not sent.
  var dropped: UInt64 { droppedCount.load(ordering: .relaxed) }

  /// Sends all frames that wait.
  func serve(_ queue: ActiveQueue) throws(RingFault) {
    let allowed = NetFeature.hostOffloads(queue.features)
    try queue.drain { chain throws(RingFault) in
      guard chain.readableCount >= VirtioNetHeader.count else {
        throw RingFault(queue: queue.index, .request("has less than a frame's header"))
      }
      var frame = DeviceRequest(
        "frame", .fromGuest, bytes: UInt64(chain.readableCount - VirtioNetHeader.count))
      if send(&chain, allowed, mayWait: { !queue.isAwaited }) {
        sentCount.add(1, ordering: .relaxed)
      } else {
        droppedCount.add(1, ordering: .relaxed)
        (frame.result, frame.bytes) = (.dropped, 0)
      }
      queue.request = frame
      return 0
    }
  }

  private func send(
    _ chain: inout DescriptorChain, _ allowed: NetworkOffloads, mayWait: () -> Bool
  ) -> Bool {
    var sound = VirtioNetHeader(chain)
    chain.dropReadable(VirtioNetHeader.count)
    let count = chain.readableCount
    guard sound.makeSound(count: count, allowed: allowed) else { return false }
    sound.store(in: header, buffers: 0)
    return backEnd.send(
      header: header, chain.readable, count: count, queue: pair, mayWait: mayWait)
  }
}
