import Host
import Memory
import Network
import Synchronization

/// A network that keeps what a guest sends and gives what a test puts in.
final class TestNetwork: NetworkBackEnd {
  struct Sent: Equatable {
    var header: [UInt8]
    var frame: [UInt8]
    var queue: Int
  }

  private struct State {
    var sent: [Sent] = []
    var incoming: [[[UInt8]]]
    var allowed: [NetworkOffloads] = []
    var activeQueues: [Int] = []
    var hasEnded = false
  }

  let name = "test"
  let offloads: NetworkOffloads
  let queueCount: Int
  private let events: [Box]
  private let state: Mutex<State>

  private final class Box: Sendable {
    let event: Event
    init() throws(Errno) { event = try Event() }
  }

  init(_ offloads: NetworkOffloads = [], queueCount: Int = 1) throws {
    self.offloads = offloads
    self.queueCount = queueCount
    var events: [Box] = []
    for _ in 0..<queueCount { events.append(try Box()) }
    self.events = events
    state = Mutex(State(incoming: [[[UInt8]]](repeating: [], count: queueCount)))
  }

  var sent: [Sent] { state.withLock { $0.sent } }
  var allowed: [NetworkOffloads] { state.withLock { $0.allowed } }
  var activeQueues: [Int] { state.withLock { $0.activeQueues } }
  /// How many frames wait for the guest.
  var waiting: Int { state.withLock { $0.incoming.reduce(0) { $0 + $1.count } } }

  /// Has what `other` has.
  func take(_ other: TestNetwork) {
    let theirs = other.state.withLock { $0 }
    state.withLock { $0 = theirs }
  }

  /// Lets `frame` come to `queue`, behind `header`.
  func deliver(
    _ frame: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 12), queue: Int = 0
  ) {
    state.withLock { $0.incoming[queue].append(header + frame) }
    events[queue].event.raise()
  }

  /// Pulls the cable.
  func end() {
    state.withLock { $0.hasEnded = true }
    events[0].event.raise()
  }

  func allow(_ offloads: NetworkOffloads) { state.withLock { $0.allowed.append(offloads) } }
  func setActiveQueues(_ count: Int) { state.withLock { $0.activeQueues.append(count) } }
  func inputDescriptor(queue: Int) -> Int32? { events[queue].event.descriptor.number }

  func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    let sent = Sent(header: bytes(header), frame: frame.flatMap(bytes), queue: queue)
    precondition(sent.frame.count == count, "a frame of another length than told")
    state.withLock { $0.sent.append(sent) }
    return true
  }

  private func bytes(_ view: MemoryView) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: view.count)
    var span = bytes.mutableSpan
    view.copy(to: &span, from: 0)
    return bytes
  }

  func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    let (next, hasEnded) = state.withLock { state in
      (state.incoming[queue].isEmpty ? nil : state.incoming[queue].removeFirst(), state.hasEnded)
    }
    if let next {
      buffer.copy(from: next.span, at: 0)
      return .frame(next.count)
    }
    if hasEnded { throw NetworkError(.host, "the test's network has ended") }
    return .nothing
  }
}
