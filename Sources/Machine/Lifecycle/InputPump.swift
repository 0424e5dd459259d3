import Devices
import Host

/// What is to be typed on a machine's console, from any thread; it never waits for the guest.
package final class ConsoleInputQueue: Sendable {
  /// Raised when something has come.
  package let event: Event
  private let bytes = RankedMutex<[UInt8]>(.device, [])

  /// An empty one.
  package init() throws(Errno) { event = try Event() }

  /// Appends `new`.
  package func write(_ new: [UInt8]) {
    bytes.withLock { $0 += new }
    event.raise()
  }

  /// Takes what has come.
  package func take() -> [UInt8] {
    event.consume()
    return bytes.withLock { bytes in
      defer { bytes = [] }
      return bytes
    }
  }
}

/// Carries the console's input to the serial port or the virtio console, no faster than the guest
/// reads it.
///
/// What was read and not yet taken waits here, up to a limit; beyond that the source is left alone,
/// so that a pipe blocks its writer and nothing is lost.
final class InputPump: ReceiveDemand, @unchecked Sendable {
  // Sound as Sendable: only the event loop's thread uses it, but for receiverHasRoom(), which
  // touches nothing but the event.

  /// Raised when the receiver has room again.
  let demand: Event
  /// What the input goes to; set while the machine is wired. It has this one for its demand.
  weak var receiver: (any ByteReceiver)?

  /// Something that input comes from.
  struct Source {
    /// The open file's number.
    let number: Int32
    fileprivate var queue: ConsoleInputQueue?
    fileprivate var filter: (@Sendable ([UInt8], RunControl) -> [UInt8])?
    fileprivate var gate: InputGate?
    fileprivate var isAtEnd = false

    fileprivate init(_ number: Int32) { self.number = number }
  }

  private(set) var sources: [Source] = []
  private let control: RunControl
  private(set) var pending: [UInt8] = []
  private var taken = 0
  /// Whether what comes waits: the machine stands still.
  var isHeld = false

  /// So much may wait: enough for a large paste, so that the escape key still works behind it.
  private static let limit = 1 << 17

  /// Carries `waiting` first, which another one has read.
  init(
    _ input: ConsoleInput, _ control: RunControl, after waiting: [UInt8] = []
  ) throws(Errno) {
    demand = try Event()
    self.control = control
    pending = waiting
    add(input)
  }

  private func add(_ input: ConsoleInput) {
    switch input {
    case .none: break
    case .bytes(let bytes): pending += bytes
    case .descriptor(let number, let filter, let gate):
      var source = Source(number)
      (source.filter, source.gate) = (filter, gate)
      sources.append(source)
    case .queue(let queue):
      var source = Source(queue.event.descriptor.number)
      source.queue = queue
      sources.append(source)
    case .both(let one, let other):
      add(one)
      add(other)
    }
  }

  /// Called by the receiver, on any thread.
  func receiverHasRoom() { demand.raise() }

  /// What the receiver has not taken so far.
  var waiting: [UInt8] { Array(pending.dropFirst(taken)) }

  /// What the guest has not taken so far.
  var unread: [UInt8] { (receiver?.unread ?? []) + waiting }

  /// Takes back what the receiver has and the guest has not read: it is to be reset.
  func takeBack() {
    pending = unread
    taken = 0
  }

  /// Whether there is a source that may not be read now.
  var isShut: Bool { sources.contains { $0.gate?.isOpen == false && !$0.isAtEnd } }

  /// Whether a source may still give something, and there is room for it.
  func wantsMore(from index: Int) -> Bool {
    let source = sources[index]
    return !source.isAtEnd && source.gate?.isOpen ?? true && pending.count - taken < Self.limit
  }

  /// Reads once from a source, which is ready, and passes on what the guest takes.
  func readMore(from index: Int) {
    let source = sources[index]
    do throws(Errno) {
      if let queue = source.queue {
        pending += queue.take()
      } else {
        let bytes = try FileDescriptor(borrowing: source.number).read(atMost: 4096, goesOn: false)
        if bytes.isEmpty { sources[index].isAtEnd = true }
        pending += source.filter?(bytes, control) ?? bytes
      }
    } catch .interrupted, .tryAgain {
    } catch {
      // A terminal that went away gives EIO: for the guest that is silence.
      sources[index].isAtEnd = true
    }
    feed()
  }

  /// Passes on what the guest takes now.
  func feed() {
    guard !isHeld, taken < pending.count, let receiver else { return }
    taken += receiver.receive(pending.span.extracting(taken..<pending.count))
    if taken == pending.count {
      pending.removeAll(keepingCapacity: true)
      taken = 0
    } else if taken >= Self.limit {
      // A guest that is never up to date must not have all that it ever read kept.
      pending.removeFirst(taken)
      taken = 0
    }
  }
}
