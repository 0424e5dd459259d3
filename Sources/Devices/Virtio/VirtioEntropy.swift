import Host
import Memory

/// A virtio entropy device (virtio 1.2, 5.4): random bytes from the host's kernel.
package final class VirtioEntropy: VirtioDevice {
  /// A request gets at most so many bytes, however many it asks for (5.4.6.1 allows fewer).
  package static let mostBytes = 64 << 10

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-rng" }
  /// An entropy source.
  package var type: UInt16 { 4 }
  /// It has no features.
  package var features: VirtioFeatures { [] }
  /// One queue.
  package let queueSizes: [UInt16] = [64]

  // Used by the queue's thread alone.
  private let buffer = RankedMutex(.device, [UInt8](repeating: 0, count: 4096))

  /// Makes one.
  package init() {}

  /// Requests for bytes.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    VirtioQueueRole("requestq", isRead: true)
  }

  /// Fills all buffers that wait.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
    try queue.drain { chain throws(RingFault) in
      guard chain.writableCount > 0 else {
        throw RingFault(queue: queue.index, .request("has no room for random bytes"))
      }
      let count = fill(chain.writable)
      queue.request = DeviceRequest("random bytes", .toGuest, bytes: UInt64(count))
      return UInt32(count)
    }
  }

  private func fill(_ views: [MemoryView]) -> Int {
    buffer.withLock { buffer in
      var total = 0
      for view in views {
        var done = 0
        while done < view.count, total < Self.mostBytes {
          let count = min(view.count - done, buffer.count, Self.mostBytes - total)
          var span = buffer.mutableSpan
          // Without random numbers the driver gets fewer bytes, never weak ones.
          guard (try? RandomBytes.fill(&span)) != nil else { return total }
          view.copy(from: buffer.span.extracting(0..<count), at: done)
          done += count
          total += count
        }
      }
      return total
    }
  }
}
