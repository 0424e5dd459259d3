import Host
import KVM
import Memory

extension Experiment {
  /// What kinds of memory a guest has, who writes which pages, and how memory is lent.
  static let slots = Experiment(
    "slots", "memory slots: RAM, ROM and holes; dirty logging; over-commit and balloon",
    "Memory virtualization",
    exercise: Exercise(
      text: "A guest that writes to exactly 10 pages between 0x100000 and 0x200000, and halts.",
      check: checkDirtyGuest),
    variables: [
      Variable(
        "width", "how many pages a phase writes", 40, 17...60,
        seeded: Array(18...39) + Array(41...56)),
      Variable("phases", "how many phases there are", 12, 2...12, seeded: Array(7...12)),
      Variable(
        "balloon", "how many pages the balloon takes", 1536, 2...2048,
        seeded: Array(stride(from: 500, through: 1500, by: 20))),
    ],
    transfer: Transfer(
      id: "dirty-total", variable: "phases", values: [3, 4, 5, 6], fact: "dirty_total"
    ) { "With \($0) phases, how many dirty pages do all readings of the log find together?" }
  ) { report throws(LabError) in
    try Slots(report.variation).tell(&report)
  }
}

/// The experiment `slots`.
private struct Slots {
  private let kinds: [Kind]
  private let log: DirtyLog
  private let loan: Loan

  init(_ variation: Variation) throws(LabError) {
    let kit = try Probe.Kit("slots")
    kinds = try Kind.measure(kit)
    log = try DirtyLog(kit, width: variation["width"], phaseCount: variation["phases"])
    loan = try Loan(kit, given: variation["balloon"])
  }

  func tell(_ report: inout Report) {
    report.text(
      "A memory slot lends a stretch of kvmlite's own memory to the guest as physical memory. What is "
        + "in no slot is a hole: each access leaves as MMIO. A slot may be read-only, and KVM can keep a "
        + "log of the pages that a guest wrote.")
    tellKinds(&report)
    tellLog(&report)
    tellLoan(&report)
    ask(&report)
  }

  // MARK: Kinds

  private func tellKinds(_ report: inout Report) {
    report.heading("RAM, ROM and a hole")
    var table = Table(
      "One access each",
      ["memory", "access", "exit", "#returns of KVM_RUN", "what came of it"])
    for kind in kinds {
      table.add([kind.memory, kind.access, kind.exit, "\(kind.returns)", kind.effect])
      report.note("exit/\(kind.memory) \(kind.access)", kind.exit)
    }
    report.table(table)
    report.text(
      "ROM is memory for reading and a device for writing: the write left as MMIO with its data, and "
        + "what becomes of it is kvmlite's decision. A flash chip, or the write-protected page tables of "
        + "the lab `shadow`, are made of this.")
  }

  // MARK: Dirty log

  private func tellLog(_ report: inout Report) {
    report.heading("Who wrote which page")
    let phases = log.phases
    report.text(
      "The guest writes in \(phases.count) phases: each time \(log.width) pages, 16 pages further "
        + "on, and the first page in every phase. After each phase the log is read, which also clears "
        + "it. A live migration copies memory this way, round by round, until few enough pages are dirty."
    )
    var table = Table(
      "Pages written in each phase (one column for 8 pages: . none, + some, # all)",
      ["#phase", "#pages", "#as foreseen", "=pages 0 to \(DirtyLog.pages - 1)"])
    for (index, phase) in phases.enumerated() {
      let cells = stride(from: 0, to: DirtyLog.pages, by: 8).map { start in
        let count = (start..<start + 8).count { phase.contains($0) }
        return count == 0 ? "." : count == 8 ? "#" : "+"
      }
      table.add([
        "\(index)", "\(phase.count)", phase == log.expected(index) ? "yes" : "no",
        cells.joined(),
      ])
    }
    report.table(table)
    let right = phases.indices.count { phases[$0] == log.expected($0) }
    report.text(
      "\(right) of \(phases.count) phases have exactly the pages that the guest's source says. "
        + log.priceText)
    report.picture(log.picture)
    report.note("phases", phases.count)
    report.note("phases_right", right)
    report.note("dirty_each", .list(phases.map { .number($0.count) }))
    report.note("dirty_total", phases.reduce(0) { $0 + $1.count })
    report.note("exits_with_log", log.exits.map { .number($0.with) } ?? .text(Table.notMeasured))
    report.note("exits_without_log", log.exits.map { .number($0.without) } ?? .text("n/a"))
  }

  // MARK: Over-commit

  private func tellLoan(_ report: inout Report) {
    report.heading("More memory than there is")
    if let reason = loan.failure {
      report.text("n/a: \(reason)")
      report.note("overcommit", Table.notMeasured)
      return
    }
    var table = Table(
      "Memory of one guest, in MiB", ["step", "#promised", "#of the host's memory held"])
    for step in loan.steps {
      table.add([step.name, "\(loan.promised >> 20)", decimal(Double(step.resident) / 1_048_576)])
    }
    table.note("The host has \(loan.hostMemory >> 20) MiB of memory.")
    report.table(table)
    report.text(
      "The guest was promised \(loan.promised >> 20) MiB"
        + (loan.promised > loan.hostMemory ? ", more than the host has. " : ". ")
        + "A page is lent when it is first touched. The balloon takes pages back: the guest says which "
        + "it does without, kvmlite gives them back to the host, and should the guest touch one again "
        + "it gets a page of zeroes.")
    report.note("promised", Int(loan.promised))
    report.note("host_memory", Int(loan.hostMemory))
    for (key, step) in zip(["start", "touched", "ballooned", "again"], loan.steps) {
      report.note("resident/" + key, step.resident)
    }
    report.note("ballooned_page_is_zero", loan.isZeroAfterwards)
    report.note("balloon_exits", loan.balloonExits)
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "exits-kinds", "Which of these leave as MMIO? Of: RAM write, ROM read, ROM write, hole read",
      .set(
        kinds.filter { $0.exit == "MMIO" && !($0.memory == "hole" && $0.access == "write") }
          .map { "\($0.memory) \($0.access)" }), points: 2, at: "One access each")
    report.ask(
      "dirty-first", "How many pages are dirty after phase 0?", .number(log.phases[0].count),
      at: "Pages written in each phase")
    report.ask(
      "dirty-later", "How many after phase 1?", .number(log.phases[1].count),
      at: "Pages written in each phase")
    report.ask(
      "rom-unchanged", "Is the ROM's word unchanged after the guest's write?",
      .flag(kinds.contains { $0.memory == "ROM" && $0.effect == "unchanged" }),
      at: "One access each")
    if loan.failure == nil {
      report.ask(
        "balloon-zero", "Does the guest find zeroes in a page that it had given away?",
        .flag(loan.isZeroAfterwards), at: "More memory than there is")
      report.ask(
        "balloon-pages", "How many pages did the balloon take from the guest?",
        .number(loan.balloonExits), at: "Memory of one guest, in MiB")
    }
  }
}

/// One access to one kind of memory.
private struct Kind {
  let memory: String
  let access: String
  let exit: String
  let returns: Int
  let effect: String

  private static let rom: UInt64 = 0x1000_0000
  private static let hole: UInt64 = 0x2000_0000
  private static let ram: UInt64 = 0x10_0000

  static func measure(_ kit: Probe.Kit) throws(LabError) -> [Kind] {
    var kinds: [Kind] = []
    for (memory, address) in [("RAM", ram), ("ROM", rom), ("hole", hole)] {
      for access in ["read", "write"] {
        kinds.append(try one(kit, memory, address, access))
      }
    }
    return kinds
  }

  private static func one(
    _ kit: Probe.Kit, _ memory: String, _ address: UInt64, _ access: String
  ) throws(LabError) -> Kind {
    let contents = [UInt8](repeating: 0x11, count: 4096)
    let bench = try Bench(
      kit.image, what: "the guest of slots", roms: [(GuestAddress(rom), contents)])
    try bench.start(at: kit.address(of: access), .kernel) { $0.rbx = address }
    var (exit, returns, data) = ("none", 0, UInt64(0))
    loop: while true {
      switch try bench.run() {
      case .mmio(let mmio):
        (exit, returns, data) = ("MMIO", returns + 1, mmio.data)
        if !mmio.isWrite { bench.vcpu.setMMIOData(0xC0FFEE) }
      case .halt: break loop
      case let other: throw .unexpected("\(memory) \(access) ended by \(other.reason.name)")
      }
    }
    let seen = try bench.words(at: BenchLayout.scratch, 1)[0]
    let effect: String
    if access == "read" {
      effect = "the guest got \(hex(seen))"
    } else if memory == "hole" {
      effect = "kvmlite was given \(hex(data))"
    } else {
      let word = try bench.words(at: address, 1)[0]
      effect = word == 0x5A5A ? "written" : "unchanged"
    }
    return Kind(memory: memory, access: access, exit: exit, returns: returns, effect: effect)
  }
}

/// The pages that a guest writes, phase by phase.
private struct DirtyLog {
  static let pages = 256
  private static let start: UInt64 = 0x10_0000

  /// How many pages a phase writes, besides the first.
  let width: Int
  let phases: [Set<Int>]
  /// KVM's exits of the same guest with and without the log; nil where KVM has no counters.
  let exits: (with: Int, without: Int)?

  init(_ kit: Probe.Kit, width: Int, phaseCount: Int) throws(LabError) {
    self.width = width
    let (phases, with) = try Self.run(kit, width, phaseCount, isLogged: true)
    let (_, without) = try Self.run(kit, width, phaseCount, isLogged: false)
    self.phases = phases
    if let with, let without { exits = (with, without) } else { exits = nil }
  }

  /// The pages that phase `index` writes, by the guest's source.
  func expected(_ index: Int) -> Set<Int> {
    Set([0] + (index * 16..<index * 16 + width))
  }

  private static func run(
    _ kit: Probe.Kit, _ width: Int, _ phaseCount: Int, isLogged: Bool
  ) throws(LabError) -> (phases: [Set<Int>], exits: Int?) {
    let bench = try Bench(kit.image, what: "the guest of slots") {
      (vm: VM, memory: GuestMemory) throws(LabError) in
      // Pages of 4 KiB in the host, so that both runs fault alike.
      memory.regions[0].mapping.adviseHugePages(from: memory.regions[0].mapping.count)
      try kvm { () throws(KVMError) in
        try vm.setMemory(slot: 0, memory.regions[0], logsDirtyPages: isLogged)
      }
    }
    // All pages are there before: what is counted is the log's price alone.
    try bench.start(at: kit.address(of: "touch"), .kernel) { registers in
      (registers.rbx, registers.r12) = (start, UInt64(pages))
    }
    try bench.runToHalt()
    let first = Int(start >> 12)
    let slotPages = Int(bench.memory.regions[0].count >> 12)
    func written() throws(LabError) -> Set<Int> {
      guard isLogged else { return [] }
      let bits = try kvm { () throws(KVMError) in
        try bench.vm.dirtyLog(slot: 0, pages: slotPages)
      }
      return Set(
        (0..<pages).filter { bits[(first + $0) / 64] >> UInt64((first + $0) % 64) & 1 == 1 })
    }
    _ = try written()
    let counter = bench.exitCounter()
    let before = try counter?.value()
    try bench.start(at: kit.address(of: "phases"), .kernel) { registers in
      (registers.rbx, registers.r12) = (start, UInt64(width))
      registers.r15 = UInt64(phaseCount)
    }
    var phases: [Set<Int>] = []
    while case .portIO = try bench.run() { phases.append(try written()) }
    guard phases.count == phaseCount else {
      throw .unexpected("the guest of slots wrote in \(phases.count) phases")
    }
    let after = try counter?.value()
    return (phases, before.flatMap { before in after.map { $0 - before } })
  }

  var priceText: String {
    guard let exits else {
      return "What the log costs is n/a: this kernel has no KVM_GET_STATS_FD."
    }
    let writes = phases.reduce(0) { $0 + $1.count }
    guard exits.with > exits.without + writes / 2 else {
      return
        "The log cost nothing here, with \(exits.with) exits against \(exits.without) without it: "
        + "whoever made the writes noted them, KVM's emulator or the processor."
    }
    return "The log has its price: \(exits.with) exits, against \(exits.without) of the same guest "
      + "without a log, for \(writes) pages. To see the first write to a page KVM takes the right to "
      + "write away after each reading, unless the processor keeps the log itself."
  }

  var picture: Picture {
    let (left, cell, row) = (70.0, 3.0, 20.0)
    var picture = Picture(
      "Pages that the guest wrote (x) in each phase (y).",
      width: left + Double(Self.pages) * cell + 20,
      height: 70 + row * Double(phases.count))
    picture.label(12, 22, "Dirty pages over time", size: 15)
    picture.legend(
      260, 22, [(Picture.colours[1], "written in this phase"), ("#f3f3f3", "not written")])
    for (index, phase) in phases.enumerated() {
      let y = 36 + Double(index) * row
      picture.label(12, y + 13, "phase \(index)", size: 11)
      picture.rectangle(left, y, Double(Self.pages) * cell, row - 4, fill: "#f3f3f3")
      var page = 0
      while page < Self.pages {
        guard phase.contains(page) else {
          page += 1
          continue
        }
        var end = page
        while phase.contains(end) { end += 1 }
        picture.rectangle(
          left + Double(page) * cell, y, Double(end - page) * cell, row - 4,
          fill: Picture.colours[1], tip: "pages \(page) to \(end - 1)")
        page = end
      }
    }
    let bottom = 36 + row * Double(phases.count)
    for page in stride(from: 0, through: Self.pages, by: 64) {
      picture.label(left + Double(page) * cell, bottom + 14, "\(page)", size: 11)
    }
    picture.label(left + 300, bottom + 28, "page", size: 12)
    return picture
  }
}

/// Memory that is promised, lent and taken back.
private struct Loan {
  let promised: UInt64
  let hostMemory: UInt64
  private(set) var steps: [(name: String, resident: Int)] = []
  private(set) var isZeroAfterwards = false
  private(set) var balloonExits = 0
  /// Why no such guest could be made; nil if it was.
  private(set) var failure: String?

  private static let start: UInt64 = 16 << 20
  private static let touched = 2048
  /// More than this is never promised: KVM's own tables grow with it.
  private static let most: UInt64 = 32 << 30

  init(_ kit: Probe.Kit, given: Int) throws(LabError) {
    hostMemory = HostMemory.total()
    promised = min(hostMemory + 1 << 30, Self.most) & ~0xFFFFF
    let bench: Bench
    do {
      bench = try Bench(kit.image, ramSize: promised, what: "the guest of slots") {
        (vm: VM, memory: GuestMemory) throws(LabError) in
        for region in memory.regions { region.mapping.adviseHugePages(from: region.mapping.count) }
        try Bench.allSlots(vm, memory)
      }
    } catch {
      failure = "a guest with \(promised >> 20) MiB could not be made: \(error)"
      return
    }
    note("before the guest runs", bench)
    try run(bench, kit, "touch", Self.touched)
    note("it touched \(Self.touched) pages", bench)
    try run(bench, kit, "inflate", given)
    note("the balloon took \(given) of them", bench)
    isZeroAfterwards = try bench.words(at: Self.start, 1)[0] == 0
    try run(bench, kit, "touch", given / 2)
    note("it touched \(given / 2) of those again", bench)
  }

  private mutating func note(_ name: String, _ bench: Bench) {
    steps.append((name, bench.memory.touchedBytes()))
  }

  private mutating func run(
    _ bench: Bench, _ kit: Probe.Kit, _ routine: String, _ pages: Int
  ) throws(LabError) {
    try bench.start(at: kit.address(of: routine), .kernel) { registers in
      (registers.rbx, registers.r12) = (Self.start, UInt64(pages))
    }
    while case .portIO(let io) = try bench.run() {
      // The guest's own number: an address outside its memory is refused.
      let page = GuestAddress((bench.vcpu.value(of: io, 0) & 0xFFFF_FFFF) << 12)
      _ = try? bench.memory.giveBack(at: page, count: GuestMemory.pageSize)
      balloonExits += 1
    }
  }
}

/// Runs a student's guest with the dirty log on.
@Sendable private func checkDirtyGuest(_ image: [UInt8]) throws(LabError) -> [Grade.Item] {
  let bench = try Bench(image, seconds: 3, what: "the guest") {
    (vm: VM, memory: GuestMemory) throws(LabError) in
    try kvm { () throws(KVMError) in
      try vm.setMemory(slot: 0, memory.regions[0], logsDirtyPages: true)
    }
  }
  let end = try bench.end(by: bench.runStudent())
  let slotPages = Int(bench.memory.regions[0].count >> 12)
  let bits = try kvm { () throws(KVMError) in try bench.vm.dirtyLog(slot: 0, pages: slotPages) }
  let dirty = (0x100..<0x200).count { bits[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }
  return [
    Grade.Item(
      id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end,
      isRight: end == "KVM_EXIT_HLT", points: 1, isWork: false),
    .counted("pages", "pages written from 0x100000 to 0x1fffff", 10, dirty, points: 2),
  ]
}
