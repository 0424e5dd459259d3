import Host
import Memory

/// A virtio balloon (virtio 1.2, 5.5): memory that the guest doesn't need goes back to the host.
package final class VirtioBalloon: VirtioDevice {
  private enum Feature {
    static let statistics = VirtioFeatures.bit(1)
    static let deflateOnOOM = VirtioFeatures.bit(2)
    static let pageReporting = VirtioFeatures.bit(5)
  }

  /// What a queue is for. Those of features that were not agreed on are left out, and the ones behind
  /// them move up, as drivers and other hosts have it.
  private enum Role {
    case inflate
    case deflate
    case statistics
    case reporting
  }

  /// What the balloon counts in, whatever the guest's pages (5.5.1).
  package static let pageSize: UInt64 = 4096
  /// A statistic is two bytes for what it is and eight for how much (5.5.6.4).
  private static let statisticLength = 10
  /// The kinds of statistics that there may be.
  private static let statisticNames: [StaticString] = [
    "swap_in_bytes", "swap_out_bytes", "major_faults", "minor_faults", "free_bytes", "total_bytes",
    "available_bytes", "cache_bytes", "hugetlb_allocations", "hugetlb_failures",
  ]

  /// The name that traces and tables show.
  package var name: StaticString { "virtio-balloon" }
  /// A memory balloon.
  package var type: UInt16 { 5 }
  /// Statistics, reporting of free pages, and a guest that may help itself when it runs short.
  package let features: VirtioFeatures = [
    Feature.statistics, Feature.deflateOnOOM, Feature.pageReporting,
  ]
  /// For pages that come, pages that go, statistics, free pages.
  package let queueSizes: [UInt16] = [128, 128, 64, 128]

  private struct State {
    var target: UInt32 = 0
    var actual: UInt32 = 0
    var signals: VirtioSignals?
    /// The statistics queue's buffer, which stays here until new numbers are wanted.
    var heldStatistics: UInt16?
    var statisticsQueue: Int?
    var wantsStatistics = false
    var statistics: [UInt64?] = Array(repeating: nil, count: statisticNames.count)
    var largest: UInt32 = 0
    var inflated: UInt64 = 0
    var reported: UInt64 = 0
  }

  private let memory: GuestMemory
  private let state: RankedMutex<State>

  /// A balloon in `memory` that shall take `target` bytes of it, whole pages.
  package init(memory: GuestMemory, target: UInt64 = 0) {
    self.memory = memory
    state = RankedMutex(.device, State(target: UInt32(clamping: target / Self.pageSize)))
  }

  // MARK: The host's side

  /// How many bytes the guest has put into the balloon, as it says.
  package var size: UInt64 { state.withLock { UInt64($0.actual) * Self.pageSize } }

  /// How many bytes went back to the host so far, through the balloon and free page reports. What
  /// the guest used again since counts too.
  package var givenBack: UInt64 { state.withLock { $0.inflated &+ $0.reported } }

  /// Sizes in bytes, and the guest's last statistics.
  package var counters: [DeviceStatistics.Counter] {
    let own: [DeviceStatistics.Counter] = state.withLock { state in
      [
        .init("target_bytes", UInt64(state.target) * Self.pageSize),
        .init("largest_bytes", UInt64(state.largest) * Self.pageSize),
        .init("inflated_bytes", state.inflated), .init("reported_free_bytes", state.reported),
      ]
    }
    return own + statistics.map { .init("guest_\($0.name)", $0.value) }
  }

  /// The guest's last statistics, by name: counts and bytes.
  package var statistics: [(name: StaticString, value: UInt64)] {
    let values = state.withLock { $0.statistics }
    return zip(Self.statisticNames, values).compactMap { name, value in value.map { (name, $0) } }
  }

  /// Asks the guest for a balloon of `bytes`, whole pages.
  package func setTarget(_ bytes: UInt64) {
    let signals = state.withLock { state in
      state.target = UInt32(clamping: bytes / Self.pageSize)
      return state.signals
    }
    signals?.configurationChanged()
  }

  /// Asks the guest for new statistics.
  package func requestStatistics() {
    let (signals, queue) = state.withLock { state in
      state.wantsStatistics = true
      return (state.signals, state.statisticsQueue)
    }
    if let queue { signals?.wake(queue: queue) }
  }

  // MARK: Registers

  /// Keeps what tells the driver of a new target.
  package func connect(to signals: VirtioSignals) { state.withLock { $0.signals = signals } }

  /// num_pages, and actual as the driver wrote it (5.5.4).
  package func readConfiguration(offset: UInt64, width: Int) -> UInt64 {
    guard offset < 8 else { return 0 }
    let both = state.withLock { UInt64($0.target) | UInt64($0.actual) << 32 }
    return both >> (8 * offset) & UInt64.max >> UInt64(64 - 8 * width)
  }

  /// Takes actual; with the balloon as large as it is to be, asks what memory the guest is left with.
  package func writeConfiguration(offset: UInt64, width: Int, value: UInt64) {
    guard offset == 4, width == 4 else { return }
    let isDone = state.withLock { state in
      state.actual = UInt32(truncatingIfNeeded: value)
      state.largest = max(state.largest, state.actual)
      return state.actual == state.target
    }
    if isDone { requestStatistics() }
  }

  /// Forgets the statistics queue's buffer with its queue.
  package func stopped(queue index: Int) {
    state.withLock { state in
      guard state.statisticsQueue == index else { return }
      (state.heldStatistics, state.statisticsQueue) = (nil, nil)
    }
  }

  /// The driver takes all pages back without a word.
  package func reset() {
    state.withLock { state in
      state.actual = 0
      state.wantsStatistics = false
    }
  }

  /// Writes both sizes. The statistics queue's buffer is in its ring.
  package func save(to state: inout StateWriter) {
    let (target, actual, wants) = self.state.withLock {
      ($0.target, $0.actual, $0.wantsStatistics)
    }
    state.write("target", target)
    state.write("actual", actual)
    state.write("wantsStatistics", wants)
  }

  /// Takes them.
  package func restore(
    from state: StateReader, _ features: VirtioFeatures
  ) throws(StateError) {
    let (target, actual): (UInt32, UInt32) = (try state.read("target"), try state.read("actual"))
    let wants = try state.readFlag("wantsStatistics")
    self.state.withLock { own in
      (own.target, own.actual, own.wantsStatistics) = (target, actual, wants)
      own.largest = max(own.largest, actual)
    }
  }

  // MARK: Queues

  /// Does what the driver asks for, by the queue's role.
  package func serve(_ queue: ActiveQueue) throws(RingFault) {
    switch Self.role(queue.index, queue.features) {
    case .inflate:
      try queue.drain { chain in
        queue.request = Self.request("inflate", chain)
        inflate(chain)
        return 0
      }
    // A page that comes back gets new memory when it is touched.
    case .deflate:
      try queue.drain { chain in
        queue.request = Self.request("deflate", chain)
        return 0
      }
    case .statistics: try serveStatistics(queue)
    case .reporting:
      try queue.drain { chain in
        queue.request = DeviceRequest("free pages", bytes: UInt64(chain.writableCount))
        takeReport(chain)
        return 0
      }
    case nil: break
    }
  }

  private static func role(_ index: Int, _ features: VirtioFeatures) -> Role? {
    var roles: [Role] = [.inflate, .deflate]
    if features.contains(Feature.statistics) { roles.append(.statistics) }
    if features.contains(Feature.pageReporting) { roles.append(.reporting) }
    return index < roles.count ? roles[index] : nil
  }

  /// What each queue is for; none carries data.
  package func role(ofQueue index: Int, _ features: VirtioFeatures) -> VirtioQueueRole {
    switch Self.role(index, features) {
    case .inflate: VirtioQueueRole("inflateq")
    case .deflate: VirtioQueueRole("deflateq")
    case .statistics: VirtioQueueRole("statsq")
    case .reporting: VirtioQueueRole("reporting_vq")
    case nil: VirtioQueueRole("unused")
    }
  }

  /// A request with numbers of pages.
  private static func request(_ operation: StaticString, _ chain: DescriptorChain) -> DeviceRequest
  {
    DeviceRequest(operation, bytes: UInt64(chain.readableCount / 4) * pageSize)
  }

  /// Gives back the pages whose numbers the driver has written down. Neighbours go together: each
  /// system call costs more than many numbers.
  private func inflate(_ chain: DescriptorChain) {
    var run: Range<UInt64>?
    for index in 0..<chain.readableCount / 4 {
      let page = UInt64(chain.load(4 * index, as: UInt32.self))
      if let known = run, page == known.upperBound {
        run = known.lowerBound..<page + 1
      } else if let known = run, page + 1 == known.lowerBound {
        run = page..<known.upperBound
      } else {
        giveBack(run)
        run = page..<page + 1
      }
    }
    giveBack(run)
  }

  private func giveBack(_ pages: Range<UInt64>?) {
    guard let pages else { return }
    // Numbers of what isn't RAM are the driver's mistake, and have no effect.
    let count = try? memory.giveBack(
      at: GuestAddress(pages.lowerBound * Self.pageSize),
      count: UInt64(pages.count) * Self.pageSize)
    state.withLock { $0.inflated &+= UInt64(count ?? 0) }
  }

  /// Free pages are the request's buffers themselves (5.5.6.7).
  private func takeReport(_ chain: DescriptorChain) {
    for view in chain.writable {
      let count = view.giveBack()
      state.withLock { $0.reported &+= UInt64(count) }
    }
  }

  /// Keeps the driver's buffer; handing it back asks for the next one (5.5.6.3).
  private func serveStatistics(_ queue: ActiveQueue) throws(RingFault) {
    var chain = DescriptorChain()
    repeat {
      while try queue.take(&chain) {
        let previous = state.withLock { state in
          read(chain, into: &state)
          state.statisticsQueue = queue.index
          defer { state.heldStatistics = chain.head }
          return state.heldStatistics
        }
        if let previous { give(previous, queue) }
      }
      let asked = state.withLock { state -> UInt16? in
        guard state.wantsStatistics, let held = state.heldStatistics else { return nil }
        (state.wantsStatistics, state.heldStatistics) = (false, nil)
        return held
      }
      if let asked { give(asked, queue) }
      queue.flush()
    } while !queue.shouldStop && queue.awaitDoorbell()
  }

  private func give(_ buffer: UInt16, _ queue: ActiveQueue) {
    queue.request = DeviceRequest("statistics")
    queue.complete(buffer, written: 0)
  }

  private func read(_ chain: DescriptorChain, into state: inout State) {
    let count = min(chain.readableCount / Self.statisticLength, 64)
    for index in 0..<count {
      let start = index * Self.statisticLength
      let tag = Int(chain.load(start, as: UInt16.self))
      guard tag < state.statistics.count else { continue }
      state.statistics[tag] = chain.load(start + 2, as: UInt64.self)
    }
  }
}
