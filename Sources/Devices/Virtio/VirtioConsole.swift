import Host
import Memory

/// A virtio console with one port (virtio 1.2, 5.3).
///
/// Input is offered like a serial port's: what the guest has no buffers for waits at the sender's.
package final class VirtioConsole: VirtioDevice, ByteReceiver {
  private enum Feature {
    static let emergencyWrite = VirtioFeatures.bit(2)
  }

  private enum Queue {
    static let receive = 0
    static let transmit = 1
  }

  /// As many bytes of input wait here for the guest's buffers, and as many go out in one piece.
  package static let chunk = 4096
  private static let emergencyOffset: UInt64 = 8

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-console" }
  /// A console.
  package var type: UInt16 { 3 }
  /// Bytes can be written before there are queues.
  package var features: VirtioFeatures { Feature.emergencyWrite }
  /// To the guest, and from it.
  package let queueSizes: [UInt16] = [64, 64]

  private struct Input {
    var waiting: [UInt8] = []
    var isRoomAwaited = false
    var signals: VirtioSignals?
  }

  private let sink: any ByteSink
  private let demand: (any ReceiveDemand)?
  private let input = RankedMutex(.device, Input())

  /// A console that prints to `sink`; `demand` is called when it has room for input again.
  package init(sink: any ByteSink, demand: (any ReceiveDemand)? = nil) {
    self.sink = sink
    self.demand = demand
  }

  /// Keeps what wakes the queue when input comes.
  package func connect(to signals: VirtioSignals) { input.withLock { $0.signals = signals } }

  /// A byte written to emerg_wr is printed at once (5.3.4).
  package func writeConfiguration(offset: UInt64, width: Int, value: UInt64) {
    guard offset == Self.emergencyOffset else { return }
    sink.write(CollectionOfOne(UInt8(truncatingIfNeeded: value)).span)
  }

  /// Takes as many of `bytes` as fit, and returns how many those are. Where it is fewer than all,
  /// `receiverHasRoom` follows when there is room.
  package func receive(_ bytes: Span<UInt8>) -> Int {
    let (taken, signals) = input.withLock { input in
      let taken = min(bytes.count, Self.chunk - input.waiting.count)
      for index in 0..<taken { input.waiting.append(bytes[index]) }
      if taken < bytes.count { input.isRoomAwaited = true }
      return (taken, input.signals)
    }
    if taken > 0 { signals?.wake(queue: Queue.receive) }
    return taken
  }

  /// What it has received and the guest has not taken.
  package var unread: [UInt8] { input.withLock { $0.waiting } }

  /// Writes the input that the guest has not taken. A reset leaves it: its sender will not send it again.
  package func save(to state: inout StateWriter) { state.write("input", unread) }

  /// Takes it in place of what is here.
  package func restore(
    from state: StateReader, _ features: VirtioFeatures
  ) throws(StateError) {
    let bytes = try state.readBytes("input", limit: Self.chunk)
    let hasRoom = input.withLock { input in
      input.waiting = bytes
      let hasRoom = input.isRoomAwaited && bytes.count < Self.chunk
      if hasRoom { input.isRoomAwaited = false }
      return hasRoom
    }
    if hasRoom { demand?.receiverHasRoom() }
  }

  /// To the guest and from it.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    index == Queue.receive
      ? VirtioQueueRole("receiveq", isRead: true) : VirtioQueueRole("transmitq", isWritten: true)
  }

  /// Carries bytes one way or the other.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
    switch queue.index {
    case Queue.receive: try deliver(queue)
    default:
      try queue.drain { chain in
        queue.request = DeviceRequest("output", .fromGuest, bytes: UInt64(chain.readableCount))
        return transmit(chain)
      }
    }
  }

  private func deliver(_ queue: ActiveQueue) throws(RingFault) {
    var chain = DescriptorChain()
    var hasRoom = false
    repeat {
      while input.withLock({ !$0.waiting.isEmpty }), try queue.take(&chain) {
        let count = input.withLock { input in
          let count = chain.fill(from: input.waiting.span)
          input.waiting.removeFirst(count)
          if input.isRoomAwaited && count > 0 { (hasRoom, input.isRoomAwaited) = (true, false) }
          return count
        }
        queue.request = DeviceRequest("input", .toGuest, bytes: UInt64(count))
        queue.complete(chain.head, written: UInt32(count))
      }
      queue.flush()
    } while !queue.shouldStop && queue.awaitDoorbell() && input.withLock { !$0.waiting.isEmpty }
    if hasRoom { demand?.receiverHasRoom() }
  }

  private func transmit(_ chain: DescriptorChain) -> UInt32 {
    for view in chain.readable {
      var done = 0
      while done < view.count {
        var bytes = [UInt8](repeating: 0, count: min(view.count - done, Self.chunk))
        var span = bytes.mutableSpan
        view.copy(to: &span, from: done)
        sink.write(bytes.span)
        done += bytes.count
      }
    }
    return 0
  }
}
