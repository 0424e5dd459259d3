import Devices
import Host
import Memory
import Storage
import Synchronization
import TestSupport
import Testing

@testable import VhostUser

@Suite("A back end's turns", .limited)
struct TurnTests {
  /// Has so many requests, and says when it has none.
  private final class Waiting: Sendable {
    private let count: Atomic<Int>
    init(_ count: Int) { self.count = Atomic(count) }
    func serve() -> Bool {
      guard count.load(ordering: .relaxed) > 0 else { return false }
      return count.subtract(1, ordering: .relaxed).oldValue > 0
    }
  }

  @Test("are one request each, whoever has more")
  func order() throws {
    let turns = try BackEndTurns()
    for (machine, count) in [(1, 5), (2, 2), (3, 0), (4, 1)] {
      let waiting = Waiting(count)
      _ = turns.enter(machine) { waiting.serve() }
    }
    turns.wake()
    turns.end()
    #expect(
      turns.account == [
        "machine 1: 5 turns", "machine 2: 2 turns", "machine 4: 1 turns", "order: 1 2 4 1 2 1 1 1",
      ])
  }

  @Test("are a machine's, however many rings it has, of which each has its turn")
  func rings() throws {
    let turns = try BackEndTurns()
    let served = Mutex<[String]>([])
    for (machine, name) in [(1, "a"), (2, "c"), (1, "b")] {
      let waiting = Waiting(2)
      _ = turns.enter(machine) {
        guard waiting.serve() else { return false }
        served.withLock { $0.append(name) }
        return true
      }
    }
    turns.wake()
    turns.end()
    #expect(served.withLock { $0 } == ["a", "c", "b", "c", "a", "b"])
    #expect(turns.account.last == "order: 1 2 1 2 1 1")
  }

  @Test("end for who leaves, even while somebody always has requests")
  func leaving() throws {
    let turns = try BackEndTurns()
    let isOver = SharedBool()
    let greedy = turns.enter(1) { !isOver.value.load(ordering: .relaxed) }
    let raised = try SharedEvent()
    let other = turns.enter(2) {
      raised.event.raise()
      return true
    }
    turns.wake()
    try waitUntilRaised(raised.event)
    turns.leave(other)
    raised.event.consume()
    // Machine 1 goes on, and machine 2 has no more turns.
    turns.leave(greedy)
    isOver.value.store(true, ordering: .relaxed)
    turns.end()
    let isRaised = raised.event.descriptor.isReadable(within: 0)
    #expect(!isRaised)
    #expect(turns.account.count == 3)
  }

  private final class SharedBool: Sendable {
    let value = Atomic(false)
  }
}
