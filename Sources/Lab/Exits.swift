import Host
import KVM
import Memory

extension Experiment {
  /// What leaves the guest, how far it comes, and what that costs.
  static let exits = Experiment(
    "exits", "what leaves the guest, how far it comes and what it costs", "CPU virtualization",
    exercise: Exercise(
      text:
        "A guest that makes 100 OUTs to port 0x80 and 10 reads of MMIO at 0x30000000, and halts.",
      check: checkExitsGuest),
    variables: [
      Variable(
        "count", "how often each operation is done", 400, 100...450,
        seeded: Array(stride(from: 210, to: 440, by: 10)))
    ],
    transfer: Transfer(
      id: "returns-of-reads", variable: "count", values: [130, 150, 170, 190, 445],
      fact: "returns/MMIO read"
    ) { "If each operation is done \($0) times, how often does KVM_RUN return for all MMIO reads?" }
  ) { report throws(LabError) in
    try Exits(report.variation["count"]).tell(&report)
  }
}

/// The experiment `exits`.
private struct Exits {
  private static let samplesAddress: UInt64 = 0x20_0000
  private static let freshPages: UInt64 = 0x2_0000
  private static let pageFaultVector = 14
  private static let interruptVector = 0x30

  /// How far an operation comes.
  private enum Place {
    static let user = "user space"
    static let kernel = "KVM"
    static let emulator = "KVM's emulator"
    static let nowhere = "nowhere"
  }

  private var rows: [Row] = []
  private let canFilterMSRs: Bool
  private let count: Int

  private struct Row {
    let name: String
    /// KVM's exits of each, less those of an empty loop; nil where KVM has no counters.
    let exits: Double?
    let userExits: Double
    /// Returns of KVM_RUN for all of them together.
    let returns: Int
    let reasons: [String]
    let emulated: Bool
    let cycles: Samples
    /// Cycles of the host's clock from the call of KVM_RUN to its return, for returns that the
    /// operation was the reason of.
    let runs: Samples
    let failure: String?

    var place: String {
      if let failure { return failure }
      if userExits > 0.5 { return Place.user }
      guard let exits else { return Table.notMeasured }
      if exits > 0.5 { return Place.kernel }
      return emulated ? Place.emulator : Place.nowhere
    }
  }

  init(_ count: Int) throws(LabError) {
    self.count = count
    let kit = try Probe.Kit("exits")
    let system = try kvm { () throws(KVMError) in try System() }
    canFilterMSRs = system.value(of: .userSpaceMSR) != 0
    var baseline: Double?
    for probe in kit.probes where !probe.name.hasPrefix("(") {
      let row = try Self.measure(probe, kit, count, baseline, filtersMSRs: canFilterMSRs)
      if probe.name == "nothing" { baseline = row.exits }
      rows.append(row)
    }
  }

  private static func measure(
    _ probe: Probe, _ kit: Probe.Kit, _ count: Int, _ baseline: Double?, filtersMSRs: Bool
  ) throws(LabError) -> Row {
    let bench = try Bench(kit.image, seconds: 10, what: "'\(probe.name)'") {
      (vm: VM, memory: GuestMemory) throws(LabError) in
      try Bench.allSlots(vm, memory)
      if filtersMSRs {
        try kvm { () throws(KVMError) in try vm.enable(.userSpaceMSR, MSRExit.mask) }
      }
    }
    // The samples' own pages are there before the first sample.
    try bench.store([UInt64](repeating: 1, count: count), at: samplesAddress)
    try bench.setGate(pageFaultVector, to: kit.address(of: "(page fault)"))
    try bench.setGate(interruptVector, to: kit.address(of: "(interrupt)"))
    let sampler = try kit.address(of: "(sample)")
    try bench.start(at: sampler, .kernel) { registers in
      registers.r14 = BenchLayout.image + UInt64(probe.offset)
      registers.r15 = UInt64(count)
      registers.r13 = samplesAddress
      registers.r11 = freshPages
    }
    let exits = bench.exitCounter()
    let emulations = ExitCounter(bench.vcpu, "insn_emulation")
    let before = (try exits?.value() ?? 0, try emulations?.value() ?? 0)
    var reasons: [String] = []
    var userExits = 0
    var failure: String?
    var runs: [UInt64] = []
    runs.reserveCapacity(2 * count)
    loop: while true {
      let entered = Clock.cycles
      let exit = try bench.run()
      let left = Clock.cycles
      if case .halt = exit, try bench.registers().r15 == 0 { break }
      let name = exit.reason.name.replacing("KVM_EXIT_", with: "")
      switch exit {
      case .halt:
        if let exception = try bench.exception() {
          failure = exception.name
          break loop
        }
        if probe.name.hasSuffix("interrupt") {
          try kvm { () throws(KVMError) in
            try bench.vcpu.interrupt(vector: UInt32(interruptVector))
          }
        }
      case .portIO, .mmio, .msrAccess: break
      case .internalError:
        failure = "not in KVM's emulator"
        break loop
      default:
        failure = name
        break loop
      }
      userExits += 1
      // The first has the way to the loop in it.
      if userExits > 1 { runs.append(left &- entered) }
      if !reasons.contains(name) { reasons.append(name) }
    }
    let after = (try exits?.value() ?? 0, try emulations?.value() ?? 0)
    let each = exits.map { _ in Double(after.0 - before.0) / Double(count) - (baseline ?? 0) }
    return Row(
      name: probe.name, exits: each, userExits: Double(userExits) / Double(count),
      returns: userExits,
      reasons: reasons, emulated: after.1 - before.1 >= count,
      cycles: Samples(failure == nil ? try bench.words(at: samplesAddress, count) : []),
      runs: Samples(failure == nil ? runs : []), failure: failure)
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "The guest does each of these \(count) times and reads its clock (RDTSC) before and after. "
        + "KVM's counter `exits` says how often the guest was left; the returns of KVM_RUN say how "
        + "often that came to user space. What neither shows never left the guest.")
    report.table(table(report.times))
    if report.times.areShown { tellTimes(&report) }
    tellMeaning(&report)
    for row in rows {
      report.note("place/" + row.name, row.place)
      report.note("user/" + row.name, Int(row.userExits.rounded()))
      report.note("returns/" + row.name, row.returns)
      report.note("reasons/" + row.name, row.reasons.joined(separator: ","))
      report.note("exits/" + row.name, row.exits.map { decimal(max(0, $0)) } ?? Table.notMeasured)
      guard report.times.areShown else { continue }
      report.note("median_cycles/" + row.name, Int(clamping: row.cycles.median))
    }
    ask(&report)
  }

  /// What only a processor that isn't software can tell.
  private func tellTimes(_ report: inout Report) {
    let mark = report.times.mark
    report.table(histogram(of: \.cycles, "Executions by their cycles" + mark))
    report.picture(
      picture(
        \.cycles, "What leaving the guest costs",
        "Costs of operations: executions by cycles, on a logarithmic scale." + mark))
    tellRuns(&report)
    let spoiled = rows.filter { $0.cycles.isSpoiled || $0.runs.isSpoiled }.map(\.name)
    if report.times.meanSomething && !spoiled.isEmpty {
      report.text(
        "Spoiled: " + spoiled.joined(separator: ", ")
          + ". Their times are spread so far (compare 10% "
          + "with the median, and the median with 90%) that something else ran on this host "
          + "meanwhile. Conclude nothing from them, and run again when it is quiet.")
    }
    report.note("spoiled", .list(spoiled.map { .text($0) }))
  }

  private func table(_ times: HostTimes) -> Table {
    let titles = ["operation", "comes to", "reason", "#exits each", "#to user"]
    var table = Table(
      times.areShown
        ? "How far each comes, and what it costs in cycles of the guest's clock" + times.mark
        : "How far each comes", titles + (times.areShown ? ["#10%", "#median", "#90%"] : []))
    for row in rows {
      let cycles = [0.1, 0.5, 0.9].map { share in
        row.cycles.sorted.isEmpty
          ? Table.notMeasured : grouped(Int(clamping: row.cycles.quantile(share)))
      }
      table.add(
        [
          row.name, row.place, row.reasons.joined(separator: ", "),
          row.exits.map { decimal(max(0, $0), 2) } ?? Table.notMeasured,
          decimal(row.userExits, 2),
        ] + (times.areShown ? cycles : []))
    }
    table.note(
      "exits each: less those of the row `nothing`"
        + (times.areShown ? "; that loop and its RDTSCs are in the cycles." : "."))
    if rows.contains(where: { $0.exits == nil }) {
      table.note("n/a: this kernel has no KVM_GET_STATS_FD (Linux 5.14).")
    }
    if !canFilterMSRs {
      table.note("RDMSR unknown: this KVM sends no MSR to user space, so the guest gets #GP.")
    }
    if rows.contains(where: { $0.place == Place.emulator }) {
      table.note(
        "\(Place.emulator): its counter `insn_emulation` grew with each, and not `exits`. The whole "
          + "loop is emulated there, the row `nothing` too, so its cycles are the emulator's and "
          + "compare with no hardware's.")
    }
    return table
  }

  private func usedBins(_ samples: KeyPath<Row, Samples>) -> ClosedRange<Int> {
    let used = rows.flatMap { row in
      row[keyPath: samples].bins.indices.filter { row[keyPath: samples].bins[$0] > 0 }
    }
    return (used.min() ?? 0)...(used.max() ?? 0)
  }

  private func histogram(of samples: KeyPath<Row, Samples>, _ what: String) -> Table {
    let bins = usedBins(samples)
    var table = Table(
      "\(what), one column for each power of two",
      ["operation", "=2^\(bins.lowerBound) to 2^\(bins.upperBound + 1)"])
    for row in rows where !row[keyPath: samples].sorted.isEmpty {
      table.add([row.name, Samples.bars(Array(row[keyPath: samples].bins[bins]))])
    }
    return table
  }

  /// What the host's clock says of the same exits.
  private func tellRuns(_ report: inout Report) {
    report.heading("One KVM_RUN by the host's clock")
    report.text(
      "The time-stamp counter read in kvmlite before and after each call of KVM_RUN that came back for "
        + "the operation: a system call, the way into the guest, a turn of its loop, the way out, and "
        + "KVM's own work. What kvmlite does between two calls is not in it.")
    var table = Table(
      "Cycles of one KVM_RUN, by what brought it back" + report.times.mark,
      ["operation", "reason", "#returns", "#10%", "#median", "#90%"])
    for row in rows where !row.runs.sorted.isEmpty {
      table.add(
        [row.name, row.reasons.joined(separator: ", "), "\(row.runs.sorted.count)"]
          + [0.1, 0.5, 0.9].map { grouped(Int(clamping: row.runs.quantile($0))) })
      report.note("median_run_cycles/" + row.name, Int(clamping: row.runs.median))
      report.note("run_samples/" + row.name, row.runs.sorted.count)
    }
    report.table(table)
    report.table(histogram(of: \.runs, "Calls of KVM_RUN by their cycles" + report.times.mark))
    report.picture(
      picture(
        \.runs, "What one KVM_RUN costs",
        "Calls of KVM_RUN by cycles, on a logarithmic scale." + report.times.mark))
  }

  private func names(_ places: [String]) -> [String] {
    rows.filter { places.contains($0.place) && $0.name != "nothing" }.map(\.name)
  }

  private var inUser: [String] { names([Place.user]) }
  /// By an exit or without one: KVM did it.
  private var inKVM: [String] { names([Place.kernel, Place.emulator]) }

  private func tellMeaning(_ report: inout Report) {
    let (user, kernel, inside) = (inUser, inKVM, names([Place.nowhere]))
    let emulated = names([Place.emulator])
    report.heading("What it shows")
    report.text(
      "To user space: " + Self.list(user) + ". No further than KVM: " + Self.list(kernel)
        + (emulated.isEmpty
          ? "" : " (of these in its emulator, without an exit: " + Self.list(emulated) + ")")
        + ". Never out of the guest: " + Self.list(inside) + ".")
    if report.times.meanSomething { tellPrice(&report) }
    report.note("to_user", .list(user.map { .text($0) }))
    report.note("in_kvm", .list(kernel.map { .text($0) }))
    report.note("nowhere", .list(inside.map { .text($0) }))
  }

  private func tellPrice(_ report: inout Report) {
    func median(_ name: String) -> UInt64? {
      rows.first { $0.name == name && !$0.cycles.isSpoiled }?.cycles.median
    }
    guard let nothing = median("nothing"), let out = median("OUT") else { return }
    report.text(
      "An OUT took \(grouped(Int(clamping: out))) cycles in the median and an empty turn "
        + "\(grouped(Int(clamping: nothing))): the difference is the way out of the guest through "
        + "KVM to kvmlite, and back.")
    guard let cpuid = median("CPUID"),
      rows.contains(where: { $0.name == "CPUID" && $0.place == Place.kernel })
    else { return }
    report.text(
      "CPUID, which KVM answers itself, took \(grouped(Int(clamping: cpuid))); "
        + "\(decimal(Double(out) / Double(max(1, cpuid)))) times as much is what it costs to go on to "
        + "user space. This is why disks and networks of virtual machines batch their work, and why "
        + "KVM keeps timers and interrupt controllers to itself.")
  }

  private static func list(_ names: [String]) -> String {
    names.isEmpty ? "none" : names.joined(separator: ", ")
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "to-user", "Which of the operations come to user space?", .set(inUser), points: 2,
      at: "How far each comes")
    report.ask(
      "in-kvm",
      "Which of the operations (`nothing` apart) does KVM finish, by an exit or in its emulator?",
      .set(inKVM), points: 2, at: "How far each comes")
    if let row = rows.first(where: { $0.name.hasPrefix("page fault") }), row.failure == nil {
      report.ask(
        "guest-page-fault", "Does a page fault that the guest handles itself leave the guest?",
        .flag(row.place == Place.kernel), at: "How far each comes")
    }
    if let row = rows.first(where: { $0.name == "MMIO read" }) {
      report.ask(
        "mmio-returns", "How often does KVM_RUN return for one read of MMIO?",
        .number(Int(row.userExits.rounded())), at: "How far each comes")
    }
  }

  /// For each operation the costs as bars on a logarithmic scale.
  private func picture(
    _ samples: KeyPath<Row, Samples>, _ title: String, _ caption: String
  ) -> Picture {
    let shown = rows.filter { !$0[keyPath: samples].sorted.isEmpty }
    let bins = usedBins(samples)
    let laneHeight = 44.0
    let left = 210.0
    let step = 640 / Double(bins.count)
    var picture = Picture(
      caption, width: 900, height: 104 + laneHeight * Double(shown.count))
    picture.label(12, 22, title, size: 15)
    picture.legend(
      left + 90, 24,
      [
        (Picture.colours[1], "comes to user space"), (Picture.colours[4], "KVM does it"),
        (Picture.colours[2], "doesn't leave the guest"),
      ])
    let bottom = 36 + laneHeight * Double(shown.count)
    for (index, bin) in bins.enumerated() {
      let x = left + Double(index) * step
      picture.line(x, 36, x, bottom, stroke: "#eee")
      picture.label(x, bottom + 16, "2^\(bin)", size: 11)
    }
    picture.label(left, bottom + 34, "cycles", size: 12)
    for (lane, row) in shown.enumerated() {
      let base = 36 + laneHeight * Double(lane + 1) - 4
      picture.label(12, base - 18, row.name)
      picture.label(12, base - 4, row.place, size: 11, fill: "#666")
      picture.line(left, base, left + 640, base, stroke: "#bbb")
      let colour =
        switch row.place {
        case Place.user: Picture.colours[1]
        case Place.kernel, Place.emulator: Picture.colours[4]
        default: Picture.colours[2]
        }
      let counts = row[keyPath: samples].bins
      for (index, bin) in bins.enumerated() where counts[bin] > 0 {
        let height = max(1.5, Double(counts[bin]) / Double(count) * (laneHeight - 10))
        picture.rectangle(
          left + Double(index) * step + 1, base - height, step - 2, height, fill: colour,
          tip: "\(counts[bin])")
      }
    }
    return picture
  }
}

/// Runs a student's guest and counts its exits.
@Sendable private func checkExitsGuest(_ image: [UInt8]) throws(LabError) -> [Grade.Item] {
  let bench = try Bench(image, seconds: 3, what: "the guest")
  var (outs, reads, others) = (0, 0, 0)
  var end = "more than 1000 exits"
  for _ in 0..<1000 {
    let exit = try bench.runStudent()
    switch exit {
    case .portIO(let io) where io.port == 0x80 && io.isWrite && io.count == 1: outs += 1
    case .mmio(let mmio) where mmio.address == 0x3000_0000 && !mmio.isWrite: reads += 1
    case .portIO, .mmio: others += 1
    default:
      end = try bench.end(by: exit)
      return [
        .counted("outs", "OUTs to port 0x80", 100, outs),
        .counted("reads", "reads of MMIO at 0x30000000", 10, reads),
        .counted("others", "other exits", 0, others, isWork: false),
        Grade.Item(
          id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end,
          isRight: end == "KVM_EXIT_HLT", points: 1, isWork: false),
      ]
    }
  }
  return [
    Grade.Item(
      id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end, isRight: false, points: 4
    )
  ]
}
