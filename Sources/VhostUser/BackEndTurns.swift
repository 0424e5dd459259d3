import Devices
import Host
import Memory
import Storage
import Synchronization

/// Who of several machines is served next: one thread goes round, and each machine has one request in its
/// turn, however many it has waiting, and in however many rings.
package final class BackEndTurns: Sendable {
  /// A ring of a machine's that takes part.
  private struct Ring {
    let id: Int
    /// Serves one request, and says whether there was one.
    let serve: @Sendable () -> Bool
  }

  private struct Machine {
    let number: Int
    /// Whose turn it is comes first.
    var rings: [Ring]

    mutating func serveOne() -> Bool {
      for index in rings.indices where rings[index].serve() {
        rings.append(rings.remove(at: index))
        return true
      }
      return false
    }
  }

  private struct State {
    var machines: [Machine] = []
    /// Whose turn it is, as an index.
    var next = 0
    var nextID = 0
    /// The machines in the order in which their requests were served.
    var order: [Int] = []
    var counts: [Int: Int] = [:]
  }

  /// Of so many requests the order is kept.
  private static let mostKept = 512

  // It is held while a request is served: who takes a ring away knows that nothing of it goes on.
  private let state = Mutex(State())
  private let leaving = Atomic<Int>(0)
  private let worker: Worker

  package init() throws(Errno) { worker = try Worker(name: "turns") }

  /// Ends the thread.
  package func end() { worker.stop() }

  /// Takes part with `serve`, which does one request of a ring of `machine`; returns what `leave` wants.
  func enter(_ machine: Int, _ serve: @escaping @Sendable () -> Bool) -> Int {
    state.withLock { state in
      state.nextID += 1
      let ring = Ring(id: state.nextID, serve: serve)
      if let index = state.machines.firstIndex(where: { $0.number == machine }) {
        state.machines[index].rings.append(ring)
      } else {
        state.machines.append(Machine(number: machine, rings: [ring]))
      }
      return ring.id
    }
  }

  /// Takes no more part; nothing is served when this returns.
  func leave(_ id: Int) {
    leaving.add(1, ordering: .acquiringAndReleasing)
    state.withLock { state in
      for index in state.machines.indices { state.machines[index].rings.removeAll { $0.id == id } }
      guard let index = state.machines.firstIndex(where: { $0.rings.isEmpty }) else { return }
      state.machines.remove(at: index)
      if state.next > index { state.next -= 1 }
    }
    leaving.subtract(1, ordering: .acquiringAndReleasing)
  }

  /// Somebody has requests.
  func wake() {
    // Without a thread the driver waits, as for a disk that doesn't answer.
    try? worker.post { [self] in while serveNext() {} }
  }

  /// Serves one request of whose turn it is; false if nobody has one.
  private func serveNext() -> Bool {
    // Who leaves must not wait for the end of what has none.
    while leaving.load(ordering: .acquiring) > 0 { HostThread.yield() }
    return state.withLock { state in
      for _ in state.machines.indices {
        let index = state.next % state.machines.count
        state.next = (index + 1) % state.machines.count
        guard state.machines[index].serveOne() else { continue }
        let number = state.machines[index].number
        state.counts[number, default: 0] += 1
        if state.order.count < Self.mostKept { state.order.append(number) }
        return true
      }
      return false
    }
  }

  /// What was done, a line each.
  package var account: [String] {
    state.withLock { state in
      let machines = state.counts.keys.sorted().map {
        "machine \($0): \(state.counts[$0] ?? 0) turns"
      }
      guard !machines.isEmpty else { return [] }
      return machines + ["order: " + state.order.map(String.init).joined(separator: " ")]
    }
  }
}

/// A machine's part in turns: its number, and its disk, which ends a turn after a request.
final class BackEndSeat: Sendable {
  let turns: BackEndTurns
  let machine: Int
  let disk: DiskInTurns

  init(_ turns: BackEndTurns, machine: Int, disk: DiskInTurns) {
    (self.turns, self.machine, self.disk) = (turns, machine, disk)
  }
}

/// A machine's disk. What is done with it uses the turn of the queue up for which it is done.
final class DiskInTurns: BlockStore {
  private let base: any BlockStore
  private let turn = Mutex<(queue: ActiveQueue?, isUsed: Bool)>((nil, false))

  init(_ base: any BlockStore) { self.base = base }

  var size: UInt64 { base.size }
  var isReadOnly: Bool { base.isReadOnly }

  /// Runs `body`, in which `queue` has one request done; false if it had none.
  func inTurn(of queue: ActiveQueue, _ body: () -> Void) -> Bool {
    turn.withLock { $0 = (queue, false) }
    body()
    return turn.withLock { turn in
      turn.queue?.hold(false)
      turn.queue = nil
      return turn.isUsed
    }
  }

  private func use() {
    turn.withLock { turn in
      turn.isUsed = true
      turn.queue?.hold(true)
    }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    use()
    try base.read(into: segments, at: offset)
  }

  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    use()
    try base.write(from: segments, at: offset)
  }

  func flush() throws(StorageError) {
    use()
    try base.flush()
  }

  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    use()
    try base.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap)
  }

  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    use()
    try base.discard(at: offset, count: count)
  }
}
