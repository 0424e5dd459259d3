import Devices
import Host
import Memory
import Storage
import Synchronization

/// Moves a running machine to another kvmlite: memory while its guest runs, what it has written meanwhile
/// again, and, when little is left, the rest while it stands still. If anything fails, it goes on here.
package final class MigrationSource: Sendable {
  /// How far it is.
  package struct Progress: Sendable {
    /// How often memory was gone through.
    package var round = 0
    /// Bytes of memory that were sent, and that are left as far as is known.
    package var sent: UInt64 = 0
    package var left: UInt64 = 0
    /// Bytes a second.
    package var rate: UInt64 = 0
    /// For how long the machine ran nowhere, in nanoseconds, once that is over.
    package var downtime: UInt64 = 0
  }

  /// Why it stays here.
  package enum Trouble: Error, Sendable, CustomStringConvertible {
    case stream(MigrationStream.Trouble)
    case save(SaveError)
    case machine(String)
    /// The other side was told to go on, and nobody knows whether it does.
    case unknown

    /// In a sentence.
    package var description: String {
      switch self {
      case .stream(let trouble): "the machine stays here: \(trouble)"
      case .save(let error): "the machine stays here: \(error)"
      case .machine(let text): "the machine stays here: \(text)"
      case .unknown:
        "the other side was told to go on and has not said that it does: the machine stands still "
          + "here; resume it only if it doesn't run there"
      }
    }
  }

  /// A part of memory that is to be sent, whole pages.
  private struct Part {
    let start: GuestAddress
    var count: UInt64
  }

  private let machine: CommandQueue
  private let socket: SharedDescriptor
  private let downtime: UInt64
  private let isCancelled = Atomic(false)
  private let shared = RankedMutex(.last, Progress())

  /// To who is at `socket`; at the end the machine may stand still for `downtime` nanoseconds, as far as can
  /// be told before.
  package init(_ machine: CommandQueue, over socket: SharedDescriptor, downtime: UInt64) {
    (self.machine, self.socket, self.downtime) = (machine, socket, downtime)
  }

  /// How far it is.
  package var progress: Progress { shared.withLock { $0 } }
  /// Gives up, as long as the machine is here.
  package func cancel() { isCancelled.store(true, ordering: .relaxed) }

  /// Moves it. It has ended here when this returns, unless that is an error.
  package func run() throws(Trouble) {
    let stream = MigrationStream(socket, socket) { [self] in
      isCancelled.load(ordering: .relaxed)
    }
    do throws(Trouble) {
      let (memory, hello) = try begin()
      try Self.sending { () throws(MigrationStream.Trouble) in
        try stream.sendMark()
        try stream.send(.hello, hello)
        _ = try stream.next(.accept)
      }
      try handOver(sendWhileRunning(memory, stream), memory, stream)
    } catch {
      _ = try? still { machine in Self.log(machine, false) }
      throw error
    }
  }

  private static func sending(
    _ body: () throws(MigrationStream.Trouble) -> Void
  ) throws(Trouble) {
    do { try body() } catch { throw .stream(error) }
  }

  // MARK: While the guest runs

  /// Has what is written noted from now on, and says what machine this is.
  private func begin() throws(Trouble) -> (GuestMemory, hello: [UInt8]) {
    let found = try still { machine -> (GuestMemory, Result<SavedMachine, SaveError>, [UInt8]) in
      (
        machine.memory, Result { () throws(SaveError) in try machine.save() },
        MemoryLayoutTable.bytes(of: machine.memory)
      )
    }
    let saved: SavedMachine
    do { saved = try found.1.get() } catch { throw .save(error) }
    guard try still({ Self.log($0, true) }) else {
      throw .machine("KVM doesn't tell what the guest writes")
    }
    return (found.0, saved.with(SavedMachine.Name.memory, found.2).bytes)
  }

  @discardableResult
  private static func log(_ machine: Machine, _ isOn: Bool) -> Bool {
    (try? machine.memoryMap.setDirtyLogging(isOn)) != nil
      && (try? machine.memory.logWrites(isOn)) != nil
  }

  private static let mostRounds = 30

  /// Returns what is left: it was written before the last look, and not sent since.
  private func sendWhileRunning(
    _ memory: GuestMemory, _ stream: MigrationStream
  ) throws(Trouble) -> [Part] {
    var parts = Self.all(memory)
    var brake = Brake(machine)
    for round in 1...Self.mostRounds {
      let before = Self.count(parts)
      shared.withLock { ($0.round, $0.left) = (round, before) }
      let start = Clock.monotonicNanoseconds
      try send(parts, memory, stream) { brake.turn() }
      brake.end()
      let nanoseconds = max(1, Clock.monotonicNanoseconds &- start)
      let rate = max(1, UInt64(Double(before) / Double(nanoseconds) * 1e9))
      parts = try taken()
      let left = Self.count(parts)
      shared.withLock { ($0.rate, $0.left) = (rate, left) }
      if Double(left) / Double(rate) * 1e9 <= Double(downtime) { break }
      // A guest that writes faster than it is sent is slowed down.
      if round > 1, left > before / 4 * 3 { brake.press() }
    }
    return parts
  }

  private static func all(_ memory: GuestMemory) -> [Part] {
    memory.regions.filter { $0.kind == .ram }.map { Part(start: $0.start, count: $0.count) }
  }

  private static func count(_ parts: [Part]) -> UInt64 { parts.reduce(0) { $0 + $1.count } }

  /// What was written since the last call. The machine stands still for that: what kvmlite was given to
  /// write is written.
  private func taken() throws(Trouble) -> [Part] {
    try still { Self.taken($0) }
  }

  /// The same of a machine that stands still; all, where nobody knows.
  private static func taken(_ machine: Machine) -> [Part] {
    let writes = machine.memory.takeWrites()
    guard let pages = try? machine.memoryMap.takeDirtyPages() else { return all(machine.memory) }
    var parts: [Part] = []
    for page in (pages + writes).sorted() {
      if let last = parts.last, page.value < last.start.value + last.count { continue }
      if let last = parts.last, page.value == last.start.value + last.count {
        parts[parts.count - 1].count += GuestMemory.pageSize
      } else {
        parts.append(Part(start: page, count: GuestMemory.pageSize))
      }
    }
    return parts
  }

  private func send(
    _ parts: [Part], _ memory: GuestMemory, _ stream: MigrationStream, _ turn: () -> Void = {}
  ) throws(Trouble) {
    for part in parts {
      for offset in stride(from: 0, to: part.count, by: MigrationStream.mostPages) {
        turn()
        let count = min(part.count - offset, UInt64(MigrationStream.mostPages))
        let start = GuestAddress(part.start.value + offset)
        guard let view = try? memory.view(at: start, count: count) else { continue }
        try Self.sending { () throws(MigrationStream.Trouble) in
          try Self.send(view, at: start, stream)
        }
        shared.withLock {
          $0.sent += count
          $0.left -= min($0.left, count)
        }
      }
    }
  }

  /// Sends what of `view` isn't zero, and of the rest only where it is.
  private static func send(
    _ view: MemoryView, at start: GuestAddress, _ stream: MigrationStream
  ) throws(MigrationStream.Trouble) {
    let page = Int(GuestMemory.pageSize)
    var first = 0
    while first < view.count {
      let isZero = view.isZero(from: first, count: page)
      var end = first + page
      while end < view.count, view.isZero(from: end, count: page) == isZero { end += page }
      let address = GuestAddress(start.value + UInt64(first))
      if isZero {
        var bytes: [UInt8] = []
        bytes.append(number: address.value)
        bytes.append(number: UInt64(end - first))
        try stream.send(.zeros, bytes)
      } else {
        try stream.send(pages: view.slice(first, count: end - first), at: address)
      }
      first = end
    }
  }

  // MARK: While nothing runs

  /// What there is of a machine that stands still for good.
  private struct Last: Sendable {
    let parts: [Part]
    let state: Result<SavedMachine, SaveError>
    let resources: Resources
  }

  private func handOver(
    _ rest: [Part], _ memory: GuestMemory, _ stream: MigrationStream
  ) throws(Trouble) {
    let start = Clock.monotonicNanoseconds
    let last = try hold { machine in
      Last(
        parts: Self.taken(machine),
        state: Result { () throws(SaveError) in try machine.save() },
        resources: machine.configuration.resources)
    }
    var disks: HandedOver?
    var isTold = false
    do throws(Trouble) {
      try send(rest + last.parts, memory, stream)
      let state: SavedMachine
      do throws(SaveError) {
        state = try last.state.get().with(SavedMachine.Name.disks, last.resources.stampDisks())
      } catch { throw .save(error) }
      disks = HandedOver(last.resources)
      try Self.sending { () throws(MigrationStream.Trouble) in
        try stream.send(.state, state.bytes)
        _ = try stream.next(.ready)
      }
      guard !isCancelled.load(ordering: .relaxed) else { throw .stream(.cancelled) }
      isTold = true
      try Self.sending { () throws(MigrationStream.Trouble) in
        try stream.send(.go)
        _ = try stream.next(.running)
      }
      shared.withLock { $0.downtime = Clock.monotonicNanoseconds &- start }
      machine.send(.stop(.user))
    } catch {
      if isTold, case .stream(.refused) = error {
      } else if isTold {
        // It isn't let go: whoever resumes it knows what he does. Its disks are its own again if nobody
        // has them.
        _ = disks?.takeBack()
        machine.send(.pause)
        machine.send(.release)
        throw .unknown
      }
      if let problem = disks?.takeBack() {
        machine.send(.pause)
        machine.send(.release)
        throw .machine("\(error); and it stands still, as \(problem)")
      }
      machine.send(.release)
      throw error
    }
  }

  // MARK: Asking the machine

  /// What `body` sees in the machine, which stands still for that.
  private func still<Value: Sendable>(
    _ body: @escaping @Sendable (Machine) -> Value
  ) throws(Trouble) -> Value {
    try ask(body) { .inspect($0) }
  }

  /// The same, and it goes on standing still.
  private func hold<Value: Sendable>(
    _ body: @escaping @Sendable (Machine) -> Value
  ) throws(Trouble) -> Value {
    try ask(body) { .hold($0) }
  }

  private func ask<Value: Sendable>(
    _ body: @escaping @Sendable (Machine) -> Value,
    _ command: (@escaping @Sendable (Machine) -> Void) -> Command
  ) throws(Trouble) -> Value {
    let found = Guarded<(value: Value?, isOver: Bool)>((nil, false))
    machine.send(
      command { machine in
        let value = body(machine)
        found.locked { $0.value = value }
      }
    ) { _ in
      found.locked { $0.isOver = true }
      found.wakeAll()
    }
    guard let value = found.waiting({ $0.isOver ? .some($0.value) : nil }) else {
      throw .machine("it has ended")
    }
    return value
  }
}

/// Slows a machine down: it stands still for a part of the time.
private struct Brake: ~Copyable {
  private let machine: CommandQueue
  private var percent: UInt64 = 0
  private var isHeld = false
  private var since: UInt64 = 0
  private static let turn: UInt64 = 20_000_000

  init(_ machine: CommandQueue) { self.machine = machine }

  /// Slows it down more; never quite to a stop.
  mutating func press() { percent = min(95, percent == 0 ? 50 : percent + (100 - percent) / 2) }

  /// Lets it stand or go, as is due; called again and again.
  mutating func turn() {
    guard percent > 0 else { return }
    let now = Clock.monotonicNanoseconds
    let length = isHeld ? Self.turn * percent / (100 - percent) : Self.turn
    guard now &- since >= length else { return }
    isHeld.toggle()
    since = now
    machine.send(isHeld ? .hold { _ in } : .release)
  }

  /// Lets it go.
  mutating func end() {
    if isHeld { machine.send(.release) }
    isHeld = false
  }

  deinit { if isHeld { machine.send(.release) } }
}

/// Disks that another kvmlite may take: nobody writes to them here.
private struct HandedOver {
  private let disks: [(id: String, disk: ReportingDisk)]
  private let stamps: [[UInt8]]

  init(_ resources: Resources) {
    disks = resources.disks.sorted { $0.key < $1.key }.compactMap { id, store in
      (store as? ReportingDisk).map { (id, $0) }
    }
    stamps = disks.map { Self.stamp($0.disk) }
    for (_, disk) in disks { disk.unlock() }
  }

  private static func stamp(_ disk: ReportingDisk) -> [UInt8] {
    ((try? disk.stamps()) ?? []).flatMap(\.data)
  }

  /// Takes them back; what keeps the machine from going on with them, if something does.
  func takeBack() -> String? {
    for ((id, disk), stamp) in zip(disks, stamps) {
      do throws(DiskError) { try disk.lock() } catch {
        disk.unlock()
        return "\(id): \(error)"
      }
      guard Self.stamp(disk) == stamp else { return "\(id) was written to by somebody else" }
    }
    return nil
  }
}
