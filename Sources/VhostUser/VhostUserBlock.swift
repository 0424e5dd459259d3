import Devices
import Host
import Memory

/// A virtio block device whose queues another process serves, over vhost-user.
///
/// Doorbells and interrupts go between the guest and that process without this one. A thread of the
/// device's talks to it; a process that dies or breaks the protocol takes the device down until the
/// driver resets it, when a new connection is tried.
package final class VhostUserBlock: VirtioDevice {
  /// What is offered to drivers if the other side has it: everything of chapter 5.2.3 that takes no
  /// writes to the configuration space, and indirect descriptors, event index and version 1.
  private static let known: VirtioFeatures =
    [1, 2, 4, 5, 6, 9, 10, 12, 13, 14, 28, 29, 32].reduce(into: []) { $0.insert(.bit($1)) }
  private static let multiqueue = VirtioFeatures.bit(12)
  private static let queueCountOffset = 34
  private static let queueSize: UInt16 = 256

  /// What the driver wants of a queue.
  private struct Wanted {
    let setup: RemoteQueueSetup
    var interrupt: SharedEvent?
    var isToStop = false
    /// Whether the other side failed since the driver started the queue.
    var hasFailed = false
  }

  private struct Wish {
    var queues: [Wanted?]
    var mayUseMemory = true
    var isPaused = false
    /// How many pauses there were.
    var pauses = 0
    /// Hears of the last one, once no queue is served.
    var still: (@Sendable () -> Void)?
    weak var owner: (any VirtioRemoteOwner)?
  }

  /// What the other side does; the thread's alone.
  private struct Present: ~Copyable {
    var link: FrontEndLink?
    var hasBegun = false
    var place: Int?
    var queues: [Queue]
    /// For `--stats`.
    var connections: UInt64 = 1
    var losses: UInt64 = 0
    var mostServed = 0

    struct Queue {
      var isServed = false
      /// Where it goes on, if it has been served.
      var base: UInt16?
      var interrupt: SharedEvent?
    }
  }

  /// Another's, so that tables tell the two apart.
  package var name: StaticString { "vhost-user-block" }
  /// A block device (5.2).
  package var type: UInt16 { 2 }
  /// What the other side has, of what is known here.
  package let features: VirtioFeatures
  /// As many queues as were asked for and the other side has.
  package let queueSizes: [UInt16]
  /// The device itself.
  package var remote: (any VirtioRemote)? { self }

  private let socket: VhostUserSocket
  private let memory: GuestMemory
  private let configuration: VirtioConfigurationBytes
  private let capacity: UInt64
  private let worker: Worker
  private let changed: SharedEvent
  private let completions: [SharedEvent]
  private let wish: RankedMutex<Wish>
  private let present: RankedMutex<Present>

  /// The device that the process at `socket` serves, with at most `mostQueues` queues; `memory` is
  /// shareable.
  package init(
    _ socket: VhostUserSocket, memory: GuestMemory, mostQueues: Int
  ) throws(VhostUserError) {
    self.socket = socket
    self.memory = memory
    let worker: Worker
    do throws(Errno) { worker = try Worker(name: "vhost-user") } catch { throw .host(error) }
    self.worker = worker
    var link = try socket.link { worker.isStopping }
    try link.check()
    var features = link.features.intersection(Self.known)
    let count = features.contains(Self.multiqueue) ? max(1, min(mostQueues, link.queueCount)) : 1
    if count == 1 { features.remove(Self.multiqueue) }
    self.features = features
    queueSizes = [UInt16](repeating: Self.queueSize, count: count)
    var bytes = VirtioConfigurationBytes(count: FrontEndLink.configurationSize)
    for (offset, byte) in link.configuration.enumerated() { bytes.set(byte, at: offset) }
    bytes.set(UInt16(count), at: Self.queueCountOffset)
    configuration = bytes
    capacity = bytes.read(0, 8)
    do throws(Errno) {
      changed = try SharedEvent()
      var events: [SharedEvent] = []
      for _ in 0..<count { try events.append(SharedEvent()) }
      completions = events
    } catch { throw .host(error) }
    wish = RankedMutex(.wanted, Wish(queues: (0..<count).map { _ in nil }))
    present = RankedMutex(.served, Present(link: link, queues: (0..<count).map { _ in .init() }))
  }

  /// Answers with what the other side told at the start.
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    configuration.read(offset, width)
  }

  /// Requests of all kinds, which go past this process.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    VirtioQueueRole("requestq", isRead: true, isWritten: true)
  }

  /// What is known of the other side. Requests, doorbells and interrupts are not.
  package var counters: [DeviceStatistics.Counter] {
    present.withLock { present in
      [
        .init("connections", present.connections), .init("losses", present.losses),
        .init("queues_served", UInt64(present.mostServed)),
      ]
    }
  }

  /// Never called: the other side serves them.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {}
}

extension VhostUserBlock: VirtioRemote {
  /// Starts the thread.
  package func connect(to owner: any VirtioRemoteOwner) {
    wish.withLock { $0.owner = owner }
    do throws(VhostUserError) {
      do throws(Errno) {
        try worker.watch(changed.event) { [weak self] in self?.follow() }
        for (index, event) in completions.enumerated() {
          try worker.watch(event.event) { [weak self] in
            self?.owner?.remoteDidComplete(queue: index)
          }
        }
      } catch { throw .host(error) }
      try present.withLock { (present) throws(VhostUserError) in try watch(&present) }
    } catch { fail(error) }
  }

  private var owner: (any VirtioRemoteOwner)? { wish.withLock { $0.owner } }

  /// Notes the wish, for the thread.
  package func start(queue index: Int, _ setup: RemoteQueueSetup) {
    change { $0.queues[index] = Wanted(setup: setup, interrupt: setup.interrupt) }
  }

  /// The same.
  package func stop(queue index: Int) { change { $0.queues[index]?.isToStop = true } }

  /// The same.
  package func setInterrupt(_ event: SharedEvent?, queue index: Int) {
    change { $0.queues[index]?.interrupt = event }
  }

  /// The same.
  package func setMayUseMemory(_ mayUse: Bool) { change { $0.mayUseMemory = mayUse } }

  /// Takes each queue back from the other side, and keeps where it goes on.
  package func pause(_ still: @escaping @Sendable () -> Void) {
    wish.withLock { wish in
      wish.isPaused = true
      wish.pauses += 1
      wish.still = still
    }
    do throws(Errno) { try worker.post { [weak self] in self?.follow() } } catch {
      // Without a thread nothing was ever served.
      wish.withLock { $0.still.take() }?()
    }
  }

  /// Gives them back to it.
  package func resume() {
    change { wish in
      wish.isPaused = false
      wish.still = nil
    }
  }

  /// Where queue `index` goes on.
  package func position(ofQueue index: Int) -> UInt16 {
    let start = wish.withLock { $0.queues[index]?.setup.start }
    return present.withLock { $0.queues[index].base } ?? start ?? 0
  }

  /// Forgets the queues. The next driver may agree to something else.
  package func reset() {
    present.withLock { present in
      for index in present.queues.indices { present.queues[index] = .init() }
      present.hasBegun = false
    }
    wish.withLock { wish in
      for index in wish.queues.indices { wish.queues[index] = nil }
    }
  }

  /// Ends the thread and the connection. The guest doesn't run any more.
  package func end() {
    worker.stop()
    present.withLock { $0.link = nil }
  }

  private func change(_ body: (inout Wish) -> Void) {
    wish.withLock { body(&$0) }
    changed.event.raise()
  }
}

// MARK: - The thread

extension VhostUserBlock {
  /// Hears what comes without having been asked for: the other side's end, most of all.
  private func watch(_ present: inout Present) throws(VhostUserError) {
    var place = present.place
    try present.link?.withSocket { (socket) throws(Errno) in
      place = try worker.watch(socket, inPlaceOf: place) { [weak self] in self?.listen() }
    }
    present.place = place
  }

  private func listen() {
    do throws(VhostUserError) {
      try present.withLock { (present) throws(VhostUserError) in try present.link?.check() }
    } catch { fail(error) }
  }

  /// Makes the other side do what the driver wants.
  private func follow() {
    // One that comes while queues start has its own turn, which takes them back.
    let pause = wish.withLock { $0.isPaused ? $0.pauses : nil }
    do throws(VhostUserError) {
      for index in queueSizes.indices { try follow(queue: index) }
    } catch { fail(error) }
    for index in queueSizes.indices { finish(queue: index) }
    wish.withLock { $0.isPaused && $0.pauses == pause ? $0.still.take() : nil }?()
  }

  private func follow(queue index: Int) throws(VhostUserError) {
    let (wanted, mayUse) = wish.withLock { wish in
      (wish.queues[index], wish.mayUseMemory && !wish.isPaused)
    }
    let isServed = wanted.map { !$0.isToStop && !$0.hasFailed && mayUse } ?? false
    try present.withLock { (present) throws(VhostUserError) in
      guard let wanted, isServed else { return try stop(queue: index, &present) }
      let interrupt = wanted.interrupt ?? completions[index]
      if !present.queues[index].isServed {
        try begin(&present, wanted.setup.features)
        let base = present.queues[index].base ?? wanted.setup.start
        try present.link?.start(
          queue: index, wanted.setup, memory, base: base, interrupt: interrupt)
        present.queues[index].isServed = true
        present.mostServed = max(present.mostServed, present.queues.count { $0.isServed })
      } else if interrupt !== present.queues[index].interrupt {
        try present.link?.setInterrupt(interrupt, queue: index)
      }
      present.queues[index].interrupt = interrupt
    }
  }

  /// A connection with what the driver agreed to, before its first queue.
  private func begin(
    _ present: inout Present, _ features: VirtioFeatures
  ) throws(VhostUserError) {
    if present.link == nil {
      let worker = worker
      let link = try socket.link { worker.isStopping }
      let configuration = link.configuration
      guard self.features.isSubset(of: link.features), link.queueCount >= queueSizes.count,
        configuration.span.number(at: 0) == capacity
      else { throw .unsupported("what is there now is another disk") }
      present.link = consume link
      present.connections &+= 1
      try watch(&present)
    }
    guard !present.hasBegun else { return }
    try present.link?.begin(features, memory)
    present.hasBegun = true
  }

  private func stop(queue index: Int, _ present: inout Present) throws(VhostUserError) {
    guard present.queues[index].isServed else { return }
    present.queues[index].isServed = false
    present.queues[index].base = try present.link?.stop(queue: index) ?? 0
  }

  /// Tells of a queue that the driver had stopped.
  private func finish(queue index: Int) {
    let isOver = present.withLock { present in
      // The driver may have stopped it since `follow` looked, which then comes again.
      guard !present.queues[index].isServed else { return false }
      let isOver = wish.withLock { wish in
        guard wish.queues[index]?.isToStop == true else { return false }
        wish.queues[index] = nil
        return true
      }
      guard isOver else { return false }
      present.queues[index] = .init()
      // The next driver may agree to something else.
      present.hasBegun = present.hasBegun && present.queues.contains { $0.isServed }
      return true
    }
    if isOver { owner?.remoteDidStop(queue: index) }
  }

  /// Takes the device down.
  private func fail(_ error: VhostUserError) {
    present.withLock { present in
      if present.link != nil && error != .ended { present.losses &+= 1 }
      present.link = nil
      present.hasBegun = false
      for index in present.queues.indices { present.queues[index] = .init() }
    }
    wish.withLock { wish in
      for index in wish.queues.indices { wish.queues[index]?.hasFailed = true }
    }
    guard error != .ended else { return }
    owner?.remoteDidFail("the back end at \(socket.path) is lost: \(error)")
  }
}
