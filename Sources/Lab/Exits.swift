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
      check: checkExitsGuest)
  ) { report throws(LabError) in
    try Exits().tell(&report)
  }
}

/// The experiment `exits`.
private struct Exits {
  private static let count = 400
  private static let samplesAddress: UInt64 = 0x20_0000
  private static let freshPages: UInt64 = 0x2_0000
  private static let pageFaultVector = 14
  private static let interruptVector = 0x30

  private var rows: [Row] = []
  private let canFilterMSRs: Bool

  private struct Row {
    let name: String
    /// KVM's exits of each, less those of an empty loop; nil where KVM has no counters.
    let exits: Double?
    let userExits: Double
    let reasons: [String]
    let emulated: Bool
    let cycles: Samples
    /// Cycles of the host's clock from the call of KVM_RUN to its return, for returns that the
    /// operation was the reason of.
    let runs: Samples
    let failure: String?

    var place: String {
      if let failure { return failure }
      if userExits > 0.5 { return "user space" }
      guard let exits else { return Table.notMeasured }
      if exits > 0.5 { return "KVM" }
      return emulated ? "emulated by KVM" : "nowhere"
    }
  }

  init() throws(LabError) {
    let kit = try Probe.Kit("exits")
    let system = try kvm { () throws(KVMError) in try System() }
    canFilterMSRs = system.value(of: .userSpaceMSR) != 0
    var baseline: Double?
    for probe in kit.probes where !probe.name.hasPrefix("(") {
      let row = try Self.measure(probe, kit, baseline, filtersMSRs: canFilterMSRs)
      if probe.name == "nothing" { baseline = row.exits }
      rows.append(row)
    }
  }

  private static func measure(
    _ probe: Probe, _ kit: Probe.Kit, _ baseline: Double?, filtersMSRs: Bool
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
      reasons: reasons, emulated: after.1 - before.1 >= count,
      cycles: Samples(failure == nil ? try bench.words(at: samplesAddress, count) : []),
      runs: Samples(failure == nil ? runs : []), failure: failure)
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "The guest does each of these \(Self.count) times and reads its clock (RDTSC) before and after. "
        + "KVM's counter `exits` says how often the guest was left; the returns of KVM_RUN say how "
        + "often that came to user space. What neither shows never left the guest.")
    report.table(table)
    report.table(histogram(of: \.cycles, "Executions"))
    tellRuns(&report)
    tellMeaning(&report)
    report.picture(
      picture(
        \.cycles, "What leaving the guest costs",
        "Costs of operations: executions by cycles, on a logarithmic scale."))
    for row in rows {
      report.note("place/" + row.name, row.place)
      report.note("user/" + row.name, Int(row.userExits.rounded()))
      report.note("reasons/" + row.name, row.reasons.joined(separator: ","))
      report.note("exits/" + row.name, row.exits.map { decimal(max(0, $0)) } ?? Table.notMeasured)
      report.note("median_cycles/" + row.name, Int(clamping: row.cycles.median))
    }
    ask(&report)
  }

  private var table: Table {
    var table = Table(
      "How far each comes, and what it costs in cycles of the guest's clock",
      ["operation", "comes to", "reason", "#exits each", "#to user", "#10%", "#median", "#90%"])
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
        ] + cycles)
    }
    table.note(
      "exits each: less those of the row `nothing`; that loop and its RDTSCs are in the cycles.")
    if rows.contains(where: { $0.exits == nil }) {
      table.note("n/a: this kernel has no KVM_GET_STATS_FD (Linux 5.14).")
    }
    if !canFilterMSRs {
      table.note("RDMSR unknown: this KVM sends no MSR to user space, so the guest gets #GP.")
    }
    if rows.contains(where: { $0.place == "emulated by KVM" }) {
      table.note(
        "emulated by KVM: its counter `insn_emulation` grew with each. The whole loop is emulated "
          + "there, so its cycles are the emulator's and compare with no hardware's.")
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
      "\(what) by cost: column n holds those of 2^n cycles up to twice that",
      ["operation"] + bins.map { "#\($0)" })
    for row in rows where !row[keyPath: samples].sorted.isEmpty {
      let counts = row[keyPath: samples].bins
      table.add([row.name] + bins.map { counts[$0] == 0 ? "." : "\(counts[$0])" })
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
      "Cycles of one KVM_RUN, by what brought it back",
      ["operation", "reason", "#returns", "#10%", "#median", "#90%"])
    for row in rows where !row.runs.sorted.isEmpty {
      table.add(
        [row.name, row.reasons.joined(separator: ", "), "\(row.runs.sorted.count)"]
          + [0.1, 0.5, 0.9].map { grouped(Int(clamping: row.runs.quantile($0))) })
      report.note("median_run_cycles/" + row.name, Int(clamping: row.runs.median))
      report.note("run_samples/" + row.name, row.runs.sorted.count)
    }
    report.table(table)
    report.table(histogram(of: \.runs, "Calls of KVM_RUN"))
    report.picture(
      picture(
        \.runs, "What one KVM_RUN costs", "Calls of KVM_RUN by cycles, on a logarithmic scale."))
  }

  private func names(_ place: String) -> [String] {
    rows.filter { $0.place == place && $0.name != "nothing" }.map(\.name)
  }

  private func tellMeaning(_ report: inout Report) {
    let user = names("user space")
    let kernel = names("KVM")
    let inside = names("nowhere")
    report.heading("What it shows")
    report.text(
      "To user space: " + Self.list(user) + ". No further than KVM: " + Self.list(kernel)
        + ". Never out of the guest: " + Self.list(inside) + ".")
    if let nothing = rows.first(where: { $0.name == "nothing" }),
      let out = rows.first(where: { $0.name == "OUT" })
    {
      report.text(
        "An OUT took \(grouped(Int(clamping: out.cycles.median))) cycles in the median and an empty "
          + "turn \(grouped(Int(clamping: nothing.cycles.median))): the difference is the way out of "
          + "the guest through KVM to kvmlite, and back.")
    }
    if !kernel.isEmpty, let cpuid = rows.first(where: { $0.name == "CPUID" }),
      cpuid.place == "KVM", let out = rows.first(where: { $0.name == "OUT" })
    {
      report.text(
        "CPUID, which KVM answers itself, took \(grouped(Int(clamping: cpuid.cycles.median))); "
          + "\(decimal(Double(out.cycles.median) / Double(max(1, cpuid.cycles.median)))) times as much "
          + "is what it costs to go on to user space. This is why disks and networks of virtual "
          + "machines batch their work, and why KVM keeps timers and interrupt controllers to itself."
      )
    }
    report.note("to_user", .list(user.map { .text($0) }))
    report.note("in_kvm", .list(kernel.map { .text($0) }))
    report.note("nowhere", .list(inside.map { .text($0) }))
  }

  private static func list(_ names: [String]) -> String {
    names.isEmpty ? "none" : names.joined(separator: ", ")
  }

  private func ask(_ report: inout Report) {
    for (id, place, words) in [
      ("to-user", "user space", "come to user space"), ("in-kvm", "KVM", "end in KVM"),
    ] {
      report.ask(id, "Which of the operations \(words)?", .set(names(place)), points: 2)
    }
    if let row = rows.first(where: { $0.name.hasPrefix("page fault") }), row.failure == nil {
      report.ask(
        "guest-page-fault", "Does a page fault that the guest handles itself leave the guest?",
        .flag(row.place == "KVM"))
    }
    if let row = rows.first(where: { $0.name == "MMIO read" }) {
      report.ask(
        "mmio-returns", "How often does KVM_RUN return for one read of MMIO?",
        .number(Int(row.userExits.rounded())))
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
      caption, width: 900, height: 80 + laneHeight * Double(shown.count))
    picture.label(12, 22, title, size: 15)
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
        case "user space": Picture.colours[1]
        case "KVM": Picture.colours[4]
        default: Picture.colours[2]
        }
      let counts = row[keyPath: samples].bins
      for (index, bin) in bins.enumerated() where counts[bin] > 0 {
        let height = max(1.5, Double(counts[bin]) / Double(Self.count) * (laneHeight - 10))
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
        .counted("others", "other exits", 0, others),
        Grade.Item(
          id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end,
          isRight: end == "KVM_EXIT_HLT", points: 1),
      ]
    }
  }
  return [
    Grade.Item(
      id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end, isRight: false, points: 4
    )
  ]
}
