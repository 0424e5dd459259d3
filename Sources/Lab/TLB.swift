import Doctor
import Host
import Inspect
import KVM
import Machine
import Memory

extension Experiment {
  /// What translation costs, and what it forgets to notice.
  static let tlb = Experiment(
    "tlb", "what translation costs by page size, and a stale entry", "Memory virtualization",
    variables: [
      Variable(
        "memory", "MiB of data, in pages of 2 MiB", 64, 2...64, isPowerOfTwo: true,
        seeded: [16, 32, 64])
    ],
    transfer: Transfer(
      id: "entries", variable: "memory", values: [4, 8], fact: "entries/4 KiB"
    ) { "How many entries of the guest's last tables map \($0) MiB in pages of 4 KiB?" }
  ) { report throws(LabError) in
    try TLB(report).tell(&report)
  }
}

/// The experiment `tlb`.
private struct TLB {
  private static let dataStart: UInt64 = 16 << 20
  private static let steps = 400_000
  private static let tries = 5
  private static let staleTries = 20
  /// Linear windows on the data: by 4 KiB pages and by 2 MiB pages.
  private static let smallWindow: UInt64 = 1 << 30
  private static let largeWindow: UInt64 = 2 << 30
  private static let tables: UInt64 = 0x20_0000

  private let isNested: Bool?
  private let dataSize: UInt64
  /// The entries that map the data, by the size of their pages.
  private var entries: [(size: String, count: Int)] = []
  private var rows: [Row] = []
  private let staleRing0: Stale
  private let staleRing3: Stale

  private struct Row {
    let guestSize: String
    let hostSize: String
    /// The entries of the guest's tables that one walk reads.
    let guestLevels: Int
    let hostLevels: Int
    /// Cycles for each access in each of a few tries, sorted; none where times mean nothing.
    let tries: [Double]
    /// How much of the memory really is in huge pages of the host; nil if unknown.
    let hugeBytes: UInt64?

    /// The best of the tries: what else the host does can only add to it.
    var cycles: Double { tries.first ?? 0 }
    /// Whether the tries are too far apart to conclude anything.
    var isSpoiled: Bool { (tries.last ?? 0) > cycles * 1.5 }

    /// Memory references of a walk on two levels of tables: each of the guest's entries and the page
    /// itself have to be found through all of the host's, and each of the guest's entries is read.
    var nested: Int { (guestLevels + 1) * (hostLevels + 1) - 1 }
    /// The same with shadow tables: the smaller page decides.
    var shadow: Int { max(guestLevels, hostLevels) }
  }

  /// What was read before a page-table entry changed, after, and after INVLPG.
  private struct Stale {
    var stale = 0
    var tries = 0
    var isRightAfterwards = true

    mutating func count(_ words: [UInt64]) throws(LabError) {
      guard words[0] == 0xAAAA else {
        throw .unexpected("the guest of tlb did not see the first page")
      }
      tries += 1
      if words[1] == 0xAAAA { stale += 1 }
      if words[2] != 0xBBBB { isRightAfterwards = false }
    }
  }

  init(_ report: Report) throws(LabError) {
    let times = report.times
    let dataSize = UInt64(report.variation["memory"]) << 20
    self.dataSize = dataSize
    isNested = report.backEnd?.hasNestedPaging
    let kit = try Probe.Kit("tlb")
    for hostIsHuge in [false, true] {
      let bench = try Self.makeBench(kit, dataSize, hostIsHuge: hostIsHuge)
      for (window, size) in [(Self.smallWindow, "4 KiB"), (Self.largeWindow, "2 MiB")] {
        try Self.writeChain(bench, dataSize, window)
        var tries: [Double] = []
        for _ in 0..<(times.areShown ? Self.tries : 0) {
          try bench.start(at: kit.address(of: "chase"), .user) { registers in
            registers.rbx = window
            registers.rcx = UInt64(Self.steps)
          }
          try Self.runToFault(bench)
          let cycles = try bench.words(at: BenchLayout.scratch, 1)[0]
          tries.append(Double(cycles) / Double(Self.steps))
        }
        let special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
        let place = bench.memory.location(of: GuestAddress(Self.dataStart))
        let huge = place.flatMap { PageMap.hugeBytes(ofMappingAt: $0.hostAddress) }
        rows.append(
          Row(
            guestSize: size, hostSize: hostIsHuge ? "huge" : "4 KiB",
            guestLevels: PageWalk(window, special, bench.memory).steps.count,
            hostLevels: hostIsHuge ? 3 : 4, tries: tries.sorted(), hugeBytes: huge))
        if !hostIsHuge {
          entries.append((size, Self.leaves(bench, special, window, dataSize)))
        }
      }
    }
    staleRing0 = try Self.changeInRing0(kit, dataSize)
    staleRing3 = try Self.changeInRing3(kit, dataSize)
  }

  /// How many different entries the walks of the data's pages end in.
  private static func leaves(
    _ bench: Bench, _ special: SpecialRegisters, _ window: UInt64, _ dataSize: UInt64
  ) -> Int {
    let leaves = stride(from: window, to: window + dataSize, by: 4096).compactMap { address in
      PageWalk(address, special, bench.memory).steps.last?.address.value
    }
    return Set(leaves).count
  }

  // MARK: The guest

  private static func makeBench(_ kit: Probe.Kit, _ dataSize: UInt64, hostIsHuge: Bool)
    throws(LabError) -> Bench
  {
    let bench = try Bench(
      kit.image, ramSize: dataStart + dataSize, seconds: 30, what: "the pointer chase"
    ) { (vm: VM, memory: GuestMemory) throws(LabError) in
      let mapping = memory.regions[0].mapping
      mapping.adviseHugePages(from: hostIsHuge ? Int(dataStart) : mapping.count)
      try Bench.allSlots(vm, memory)
    }
    // PDPT entries 1 and 2: a directory with tables of 4 KiB pages, and one with pages of 2 MiB.
    let open: UInt64 = 7
    let directories = [tables, tables + 0x1000]
    try bench.store(directories.map { $0 | open }, at: BenchLayout.pageTables + 0x1000 + 8)
    let count = Int(dataSize >> 21)
    for index in 0..<count {
      let frame = dataStart + UInt64(index) << 21
      let table = tables + 0x2000 + UInt64(index) * 0x1000
      try bench.store([table | open], at: directories[0] + UInt64(index * 8))
      try bench.store([frame | 0x80 | open], at: directories[1] + UInt64(index * 8))
      try bench.store((0..<512).map { frame + UInt64($0) << 12 | open }, at: table)
    }
    return bench
  }

  /// One pointer in each 4 KiB page, in an order without pattern that visits every page once, at
  /// places that spread over the cache.
  private static func writeChain(_ bench: Bench, _ dataSize: UInt64, _ window: UInt64)
    throws(LabError)
  {
    let count = Int(dataSize >> 12)
    var order = Array(1..<count)
    var random = RandomNumbers(seed: 1)
    for index in stride(from: order.count - 1, to: 0, by: -1) {
      order.swapAt(index, Int(random.next() % UInt64(index + 1)))
    }
    func place(_ page: Int) -> UInt64 { UInt64(page) << 12 + UInt64(page % 64) << 6 }
    let view = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.view(at: GuestAddress(dataStart), count: dataSize)
    }
    var from = 0
    for page in order + [0] {
      view.store(window + place(page), Int(place(from)))
      from = page
    }
  }

  /// Runs ring 3 to its HLT, which faults there.
  private static func runToFault(_ bench: Bench) throws(LabError) {
    guard case .halt = try bench.run(), let exception = try bench.exception(),
      exception.vector == 13
    else { throw .unexpected("the guest of tlb ended in another way than it should") }
  }

  // MARK: The stale entry

  private static func prepareStale(_ bench: Bench) throws(LabError) -> (entry: UInt64, new: UInt64)
  {
    try bench.store([0xAAAA], at: dataStart)
    try bench.store([0xBBBB], at: dataStart + 0x1000)
    let entry = tables + 0x2000
    try bench.store([dataStart | 7], at: entry)
    return (entry, dataStart + 0x1000 | 7)
  }

  private static func changeInRing0(_ kit: Probe.Kit, _ dataSize: UInt64) throws(LabError) -> Stale
  {
    var stale = Stale()
    let bench = try makeBench(kit, dataSize, hostIsHuge: false)
    for _ in 0..<staleTries {
      let (entry, new) = try prepareStale(bench)
      // The lab put the entry back: the guest's processor has to forget what it knew.
      try invalidate(bench, kit)
      try bench.start(at: kit.address(of: "change, INVLPG"), .kernel) { registers in
        (registers.rbx, registers.rsi, registers.r9) = (smallWindow, entry, new)
      }
      try bench.runToHalt()
      try stale.count(bench.words(at: BenchLayout.scratch, 3))
    }
    return stale
  }

  private static func changeInRing3(_ kit: Probe.Kit, _ dataSize: UInt64) throws(LabError) -> Stale
  {
    var stale = Stale()
    let bench = try makeBench(kit, dataSize, hostIsHuge: false)
    for _ in 0..<staleTries {
      let (entry, new) = try prepareStale(bench)
      try invalidate(bench, kit)
      try bench.start(at: kit.address(of: "change"), .user) { registers in
        (registers.rbx, registers.rsi, registers.r9) = (smallWindow, entry, new)
      }
      try runToFault(bench)
      try invalidate(bench, kit)
      try bench.start(at: kit.address(of: "read"), .user) { $0.rbx = smallWindow }
      try runToFault(bench)
      try stale.count(bench.words(at: BenchLayout.scratch, 3))
    }
    return stale
  }

  private static func invalidate(_ bench: Bench, _ kit: Probe.Kit) throws(LabError) {
    try bench.start(at: kit.address(of: "INVLPG"), .kernel) { $0.rbx = smallWindow }
    try bench.runToHalt()
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "A program that touches \(dataSize >> 20) MiB in random order, one word in each page of 4 KiB, finds its data in "
        + "the processor's caches, but the translations of so many pages don't fit in its TLB. With "
        + "larger pages there are fewer translations, and each walk is shorter.")
    report.table(lengths)
    if report.times.areShown { tellCosts(&report) }
    report.heading("A stale entry")
    report.text(
      "The guest reads an address, changes its page-table entry so that it leads to another page, and "
        + "reads again. Before INVLPG it may see the old page; afterwards it must see the new one.")
    report.table(staleTable)
    report.text(staleMeaning)
    for row in rows {
      let key = "guest \(row.guestSize), host \(row.hostSize)"
      report.note("references/" + key, row.nested)
      report.note("levels/" + key, row.guestLevels)
      if report.times.areShown { report.note("cycles/" + key, decimal(row.cycles, 2)) }
      report.note("huge_bytes/" + key, row.hugeBytes.map { .number(Int($0)) } ?? .text("n/a"))
    }
    for entry in entries { report.note("entries/" + entry.size, entry.count) }
    report.note("stale/ring 0", staleRing0.stale)
    report.note("stale/ring 3", staleRing3.stale)
    report.note(
      "right_after_invlpg", staleRing0.isRightAfterwards && staleRing3.isRightAfterwards)
    ask(&report)
  }

  private func tellCosts(_ report: inout Report) {
    report.text(
      "Here the guest follows \(grouped(Self.steps)) pointers that way. It runs in ring 3, which is the "
        + "processor's own on every back end.")
    report.table(costs(report.times))
    report.picture(picture(report.times))
    let spoiled = rows.filter(\.isSpoiled)
    if report.times.meanSomething && !spoiled.isEmpty {
      report.text(
        "Spoiled: \(spoiled.count) of \(rows.count) rows, whose worst run took half as long again as "
          + "the best, or more. Something else ran on this host: conclude nothing, and run again.")
    }
    report.note("spoiled", spoiled.count)
  }

  private func costs(_ times: HostTimes) -> Table {
    var table = Table(
      "Cycles for one access, the best and the worst of \(Self.tries) runs" + times.mark,
      ["guest pages", "host pages", "#best", "#worst", "#of the slowest", "huge in fact"])
    let slowest = rows.map(\.cycles).max() ?? 1
    for row in rows {
      table.add([
        row.guestSize, row.hostSize, decimal(row.cycles, 1), decimal(row.tries.last ?? 0, 1),
        decimal(row.cycles / slowest * 100, 0) + "%",
        row.hugeBytes.map { "\($0 >> 20) MiB" } ?? Table.notMeasured,
      ])
    }
    table.note(
      "huge in fact: AnonHugePages in /proc/self/smaps. The host's kernel takes advice; it need not."
    )
    if rows.contains(where: { $0.hostSize == "huge" && $0.hugeBytes == 0 }) {
      table.note(
        "This host gave no huge pages, so its rows `huge` are in truth 4 KiB (see "
          + "/sys/kernel/mm/transparent_hugepage/enabled).")
    }
    table.note("Times are facts about this host alone.")
    return table
  }

  private var lengths: Table {
    var table = Table(
      "Memory references of one walk, when nothing is cached",
      ["guest pages", "host pages", "#guest's", "#host's", "#nested", "#shadow"])
    for row in rows {
      table.add([
        row.guestSize, row.hostSize, "\(row.guestLevels)", "\(row.hostLevels)", "\(row.nested)",
        "\(row.shadow)",
      ])
    }
    table.note(
      "nested: (g+1)(h+1)-1. Each of the g entries of the guest's is a guest-physical address, which "
        + "takes h references to find and one to read; the page's own address takes h more.")
    table.note(
      "shadow: one set of tables leads from virtual to host; the smaller page decides its depth.")
    table.note(
      "The data of \(dataSize >> 20) MiB is mapped by "
        + entries.map { "\(grouped($0.count)) entries for pages of \($0.size)" }
        .joined(separator: ", ") + ".")
    switch isNested {
    case true?: table.note("This back end uses nested paging.")
    case false?: table.note("This back end uses shadow tables of KVM's making.")
    case nil: table.note("n/a: which of both this back end uses, it doesn't say.")
    }
    return table
  }

  private var staleTable: Table {
    var table = Table(
      "What the second read gave", ["in", "#tries", "#old page", "after INVLPG"])
    for (name, stale) in [("ring 0", staleRing0), ("ring 3", staleRing3)] {
      table.add([
        name, "\(stale.tries)", "\(stale.stale)",
        stale.isRightAfterwards ? "new page, always" : "not always the new page",
      ])
    }
    return table
  }

  private var staleMeaning: String {
    let stale =
      "The processor went on with what it had in its TLB: telling it is the guest's duty, and INVLPG "
      + "is how. "
    switch (staleRing0.stale > 0, staleRing3.stale > 0) {
    case (true, _):
      return stale
        + (isNested == true
          ? "With nested paging no exit is needed for it: the guest's tables are the guest's own."
          : "")
    case (false, true):
      return stale
        + "In ring 0 no old page was seen, because there KVM's emulator did the reading: it walks the "
        + "guest's tables for each access and has no TLB. In ring 3 it was the processor."
    case (false, false):
      return "Here no old page was seen. The architecture doesn't promise that."
    }
  }

  private func ask(_ report: inout Report) {
    for row in rows where row.hostSize == "4 KiB" || row.guestSize == "2 MiB" {
      let id = "references-\(row.guestSize)-\(row.hostSize)".replacing(" ", with: "")
      report.ask(
        id,
        "With nested paging, how many memory references does a walk take with guest pages of "
          + "\(row.guestSize) and \(row.hostSize == "huge" ? "huge" : "4 KiB") host pages?",
        .number(row.nested), at: "Memory references of one walk, when nothing is cached")
    }
    if let large = entries.last {
      report.ask(
        "entries-2MiB", "How many entries map the \(dataSize >> 20) MiB in pages of 2 MiB?",
        .number(large.count), at: "Memory references of one walk, when nothing is cached")
    }
    report.ask(
      "stale", "Was the old page seen after the entry had changed?",
      .flag(staleRing0.stale + staleRing3.stale > 0), at: "What the second read gave")
    report.ask(
      "invlpg", "Was the new page seen after INVLPG, always?",
      .flag(staleRing0.isRightAfterwards && staleRing3.isRightAfterwards),
      at: "What the second read gave")
  }

  private func picture(_ times: HostTimes) -> Picture {
    var picture = Picture(
      "Cycles for one access with all four combinations of page sizes." + times.mark, width: 760,
      height: 60 + 44 * Double(rows.count))
    picture.label(12, 22, "What translation costs", size: 15)
    let most = rows.map(\.cycles).max() ?? 1
    for (index, row) in rows.enumerated() {
      let y = 40 + Double(index) * 44
      picture.label(12, y + 14, "guest \(row.guestSize), host \(row.hostSize)")
      let references = isNested == false ? row.shadow : row.nested
      let kind = isNested == false ? "shadow" : "nested"
      picture.label(12, y + 29, "\(references) references, \(kind)", size: 11, fill: "#666")
      let width = max(2, row.cycles / most * 440)
      picture.rectangle(220, y, width, 30, fill: Picture.colours[0])
      picture.label(228 + width, y + 20, decimal(row.cycles, 1))
    }
    return picture
  }
}

/// Numbers without a pattern, the same in each run: SplitMix64.
struct RandomNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
    return value ^ value >> 31
  }
}
