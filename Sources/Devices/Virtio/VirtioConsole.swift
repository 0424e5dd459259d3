import Memory
import Synchronization

/// A virtio console with one port (virtio 1.2, 5.3).
///
/// Input is offered like a serial port's: what the guest has no buffers for waits at the sender's.
public final class VirtioConsole: VirtioDevice, ByteReceiver {
  private enum Feature {
    static let emergencyWrite = VirtioFeatures.bit(2)
  }

  private enum Queue {
    static let receive = 0
    static let transmit = 1
  }

  /// As many bytes of input wait here for the guest's buffers, and as many go out in one piece.
  public static let chunk = 4096
  private static let emergencyOffset: UInt64 = 8

  /// The name that traces and tables show.
  public var name: StaticString { "virtio-console" }
  /// A console.
  public var type: UInt16 { 3 }
  /// Bytes can be written before there are queues.
  public var features: VirtioFeatures { Feature.emergencyWrite }
  /// To the guest, and from it.
  public let queueSizes: [UInt16] = [64, 64]

  private struct Input {
    var waiting: [UInt8] = []
    var isRoomAwaited = false
    var signals: VirtioSignals?
  }

  private let sink: any ByteSink
  private let demand: (any ReceiveDemand)?
  private let input = Mutex(Input())

  /// A console that prints to `sink`; `demand` is called when it has room for input again.
  public init(sink: any ByteSink, demand: (any ReceiveDemand)? = nil) {
    self.sink = sink
    self.demand = demand
  }

  /// Keeps what wakes the queue when input comes.
  public func connect(to signals: VirtioSignals) { input.withLock { $0.signals = signals } }

  /// A byte written to emerg_wr is printed at once (5.3.4).
  public func writeConfiguration(offset: UInt64, width: Int, value: UInt64) {
    guard offset == Self.emergencyOffset else { return }
    sink.write(CollectionOfOne(UInt8(truncatingIfNeeded: value)).span)
  }

  /// Takes as many of `bytes` as fit, and returns how many those are. Where it is fewer than all,
  /// `receiverHasRoom` follows when there is room.
  public func receive(_ bytes: Span<UInt8>) -> Int {
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
  public var unread: [UInt8] { input.withLock { $0.waiting } }

  /// To the guest and from it.
  public func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    index == Queue.receive
      ? VirtioQueueRole("receiveq", isRead: true) : VirtioQueueRole("transmitq", isWritten: true)
  }

  /// Carries bytes one way or the other.
  public func serve(_ queue: ActiveQueue) throws(RingFault) {
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
