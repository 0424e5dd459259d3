import KVM

extension Experiment {
  /// Privileged instructions in user mode, in ring 3 and in ring 0.
  static let modes = Experiment(
    "modes", "what privileged instructions do in three worlds", "CPU virtualization",
    variables: [
      Variable(
        "instructions", "how many privileged instructions are tried", 20, 3...20,
        seeded: Array(13...19)),
      Variable("executions", "how often each is counted", 200, 50...400),
    ],
    transfer: Transfer(
      id: "returns-of-in", variable: "executions", values: [120, 140, 170, 230, 260, 310],
      fact: "returns/IN"
    ) {
      "Counting \($0) executions of IN in the guest's ring 0, how often does KVM_RUN return for it?"
    }
  ) { report throws(LabError) in
    try Modes(Probe.Kit("modes"), report.variation).tell(&report)
  }
}

/// The experiment `modes`.
private struct Modes {
  /// The privileged instructions.
  private var rows: [Row] = []
  /// What isn't privileged, or is by a setting of the guest's; and what leaves by one.
  private var controls: [Row] = []

  private struct Row {
    let name: String
    let setting: String
    /// Nil where the setting is the guest's alone.
    let host: ProbeOutcome?
    let user: ProbeOutcome
    let kernel: ProbeResult

    var reachesUser: Bool { if case .userExit = kernel.outcome { true } else { false } }
  }

  /// A setting of the guest's kernel under which some probes run.
  private struct Setting {
    let name: String
    /// What the probe's name gets, so that the row has one of its own.
    let suffix: String
    let probes: [String]
    let settings: Bench.Settings
  }

  private static let settings = [
    Setting(name: "", suffix: "", probes: ["ADD", "CPUID"], settings: .init()),
    Setting(name: "CR4.TSD off", suffix: "", probes: ["RDTSC"], settings: .init()),
    Setting(
      name: "CR4.TSD on", suffix: " with TSD", probes: ["RDTSC"],
      settings: .init(cr4: Bench.Control.timeStampDisable)),
    Setting(
      name: "CR0.CD and NW on", suffix: " with CD", probes: ["MOV from CR0", "MOV to CR0", "SMSW"],
      settings: .init(cr0: Bench.Control.noCaches)),
  ]
  private static let notPrivileged: Set<String> = ["NOP", "ADD", "CPUID", "RDTSC", "SMSW"]

  private let executions: Int

  init(_ kit: Probe.Kit, _ variation: Variation) throws(LabError) {
    executions = variation["executions"]
    let runner = ProbeRunner(kit: kit, count: executions)
    let nothing = try kit.probes.first { $0.name == "NOP" }.map { probe throws(LabError) in
      try runner.run(probe, .kernel, baseline: nil)
    }
    let privileged = kit.probes.filter { !Self.notPrivileged.contains($0.name) }
    for probe in variation.choice(
      variation["instructions"], of: privileged, keeping: { ["HLT", "IN"].contains($0.name) })
    {
      rows.append(try Self.row(probe, runner, baseline: nothing?.exitsEach))
    }
    for setting in Self.settings {
      let runner = ProbeRunner(kit: kit, settings: setting.settings, count: executions)
      for probe in kit.probes where setting.probes.contains(probe.name) {
        controls.append(try Self.row(probe, runner, baseline: nothing?.exitsEach, setting))
      }
    }
  }

  private static func row(
    _ probe: Probe, _ runner: ProbeRunner, baseline: Double?, _ setting: Setting? = nil
  ) throws(LabError) -> Row {
    Row(
      name: probe.name + (setting?.suffix ?? ""), setting: setting?.name ?? "",
      host: setting?.suffix.isEmpty == false ? nil : runner.runOnHost(probe).outcome,
      user: try runner.run(probe, .user, baseline: nil).outcome,
      kernel: try runner.run(probe, .kernel, baseline: baseline))
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "Each instruction ran as the same bytes in three worlds: in a process of this host's user mode, "
        + "in ring 3 of a guest, and in ring 0 of a guest, each time in a virtual machine of its own. "
        + "A trap that the guest takes itself is an exception; a trap that the hypervisor takes is an "
        + "exit, which KVM may handle alone or pass on to kvmlite in user space.")
    report.table(table)
    tellCounts(&report)
    tellControls(&report)
    for row in rows {
      report.note("host/" + row.name, row.host?.text ?? Table.notMeasured)
      report.note("ring3/" + row.name, row.user.text)
      report.note("ring0/" + row.name, row.kernel.outcome.text)
    }
    for row in rows {
      if let returns = row.kernel.returns { report.note("returns/" + row.name, returns) }
    }
    for row in controls {
      report.note("control/ring3/" + row.name, row.user.text)
      report.note("control/ring0/" + row.name, row.kernel.outcome.text)
    }
    report.picture(picture)
    ask(&report)
  }

  private var table: Table {
    var table = Table(
      "What became of it",
      ["instruction", "host user mode", "guest ring 3", "guest ring 0", "#exits each"])
    for row in rows { table.add([row.name] + Self.cells(row)) }
    table.note(
      "exits each: KVM's counter `exits` over \(executions) executions in ring 0, less that of "
        + "the same loop with a NOP.")
    if rows.contains(where: { $0.kernel.exitsEach == nil && $0.kernel.outcome.didRun }) {
      table.note("n/a: this kernel has no KVM_GET_STATS_FD.")
    } else if rows.contains(where: { $0.kernel.exitsEach == nil }) {
      table.note("n/a: the instruction did not run to its end, so there was nothing to count.")
    }
    if rows.contains(where: { $0.kernel.outcome == .emulated }) {
      table.note(
        "emulated by KVM: by its counter `insn_emulation` the processor never saw the instruction; "
          + "KVM fetched it and did it in software, without an exit of its own.")
    }
    return table
  }

  private static func cells(_ row: Row) -> [String] {
    [
      row.host?.text ?? Table.notMeasured, row.user.text, row.kernel.outcome.text,
      row.kernel.exitsEach.map { decimal(max(0, $0), 1) } ?? Table.notMeasured,
    ]
  }

  private var silent: [Row] { rows.filter { [.nothing, .ran].contains($0.kernel.outcome) } }

  private func tellCounts(_ report: inout Report) {
    let faults = rows.filter(\.user.isFault).count
    let agree = rows.filter { $0.host == $0.user }.count
    let emulated = rows.filter { $0.kernel.outcome == .emulated }
    let inKernel = rows.filter { $0.kernel.outcome == .kernelExit }
    let toUser = rows.filter(\.reachesUser)
    report.heading("What it shows")
    report.text(
      "\(faults) of \(rows.count) trapped in ring 3: a processor that traps all of them there is what "
        + "lets a kernel run de-privileged. Host user mode and guest ring 3 agree on \(agree) of "
        + "\(rows.count), for ring 3 is ring 3, whether a hypervisor is below or not.")
    report.text(
      "In ring 0 the same instructions have no need to trap for the guest's sake. "
        + "\(silent.count) ran without leaving the guest, \(inKernel.count) left it and came no "
        + "further than KVM, \(emulated.count) were done by KVM's emulator, "
        + "\(toUser.count) came all the way to user space"
        + (toUser.isEmpty ? "." : ": " + toUser.map(\.name).joined(separator: ", ") + "."))
    report.note("instructions", rows.count)
    report.note("ring3_faults", faults)
    report.note("ring0_silent", silent.count)
    report.note("ring0_in_kvm", inKernel.count)
    report.note("ring0_emulated", emulated.count)
    report.note("ring0_to_user", .list(toUser.map { .text($0.name) }))
  }

  private func tellControls(_ report: inout Report) {
    report.heading("Not all that a kernel runs is privileged")
    var table = Table(
      "Controls: what isn't privileged, and what a setting of the guest's kernel decides",
      [
        "instruction", "setting", "host user mode", "guest ring 3", "guest ring 0", "#exits each",
      ])
    for row in controls { table.add([row.name, row.setting] + Self.cells(row)) }
    table.note("n/a in host user mode: the setting is the guest's, not the host's.")
    report.table(table)
    report.text(
      "A kernel is made of ADDs like any program: supervisor mode allows more, and most of what runs "
        + "in it isn't privileged. RDTSC is by the manual, once the kernel sets CR4.TSD. CPUID never "
        + "is, yet a guest ought not to see the host's: VT-x and AMD-V let it leave from any ring.")
    guard !report.emulatesRing0 else {
      report.text(
        "Ring 3 runs on the host's processor here, whose CR4 is the host's: the guest's CR4.TSD does "
          + "nothing to it. "
          + (controls.contains { $0.name == "CPUID" && $0.user == .kernelExit }
            ? "CPUID leaves for KVM all the same, by an extension made for hypervisors without "
              + "hardware's help: with CPUID faulting the host makes it raise #GP in ring 3."
            : "CPUID tells ring 3 of the host, and no hypervisor without hardware's help can mend "
              + "that but on a processor with CPUID faulting."))
      return
    }
    let leaving = controls.filter {
      $0.setting.hasPrefix("CR0") && $0.kernel.outcome == .kernelExit
    }
    report.text(
      "With caches off (CD and NW in CR0, as after a reset), "
        + (leaving.isEmpty ? "nothing" : leaving.map(\.name).joined(separator: ", "))
        + " left ring 0 for KVM. Without, see above: what leaves is the hypervisor's choice, and the "
        + "choice may depend on what the guest has set.")
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "ring3-faults",
      "How many of the instructions of the first table raise an exception in the guest's ring 3?",
      .number(rows.filter(\.user.isFault).count), at: "What became of it")
    report.ask(
      "ring0-user-space", "Which of them leave the guest's ring 0 and come as far as user space?",
      .set(rows.filter(\.reachesUser).map(\.name)), points: 2, at: "What became of it")
    if let row = rows.first(where: { $0.name == "HLT" }), case .fault(let vector, _)? = row.host {
      report.ask(
        "hlt-host", "Which exception does HLT raise in the host's user mode?",
        .word(GuestException.name(of: vector)), at: "What became of it")
    }
    report.ask(
      "ring0-silent",
      "How many of them ran in ring 0 on the processor itself, without KVM's doing anything?",
      .number(silent.count), at: "What became of it")
    let isSame = rows.allSatisfy { $0.host == $0.user }
    report.ask(
      "same-ring3", "Do all of them do in the guest's ring 3 what they do in the host's user mode?",
      .flag(isSame), at: "What became of it")
    let trapping = controls.filter { !$0.setting.hasPrefix("CR0") && $0.user.isFault }
    report.ask(
      "controls",
      "Which of ADD, CPUID, RDTSC, RDTSC with TSD raise an exception in the guest's ring 3?",
      .set(trapping.map(\.name)), points: 2, at: "Controls")
  }

  /// The tables as a grid of coloured fields.
  private var picture: Picture {
    let rowHeight = 22.0
    let all = rows + controls
    var picture = Picture(
      "Where each instruction traps: in the guest by an exception, in KVM, in user space, or nowhere.",
      width: 800, height: 104 + rowHeight * Double(all.count))
    let columns = ["host user mode", "guest ring 3", "guest ring 0"]
    picture.label(12, 20, "Where it traps", size: 15)
    picture.legend(12, 42, ProbePalette.legend)
    for (index, title) in columns.enumerated() {
      picture.label(200 + Double(index) * 180, 68, title)
    }
    for (index, row) in all.enumerated() {
      let y = 78 + Double(index) * rowHeight + (index < rows.count ? 0 : 12)
      picture.label(12, y + 15, row.name, isFixed: true)
      for (column, outcome) in [row.host, row.user, row.kernel.outcome].enumerated() {
        let x = 200 + Double(column) * 180
        picture.rectangle(
          x, y, 172, rowHeight - 3, fill: outcome.map(ProbePalette.colour) ?? "#ffffff")
        picture.label(x + 8, y + 14, outcome?.text ?? Table.notMeasured, size: 12)
      }
    }
    return picture
  }
}

/// The colours of outcomes in pictures, light enough for black words.
enum ProbePalette {
  static func colour(of outcome: ProbeOutcome) -> String {
    switch outcome {
    case .nothing, .ran: "#d9ead3"
    case .kernelExit: "#fff2cc"
    case .emulated: "#fce5cd"
    case .userExit: "#f9cb9c"
    case .fault: "#cfe2f3"
    case .notEmulated, .other: "#e6e6e6"
    }
  }

  /// What they mean.
  static let legend = [
    ("#d9ead3", "runs unseen"), ("#cfe2f3", "exception"), ("#fff2cc", "exit, ends in KVM"),
    ("#fce5cd", "KVM's emulator"), ("#f9cb9c", "exit to user space"), ("#e6e6e6", "another end"),
  ].map { (fill: $0.0, text: $0.1) }
}
