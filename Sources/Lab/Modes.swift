import KVM

extension Experiment {
  /// Privileged instructions in user mode, in ring 3 and in ring 0.
  static let modes = Experiment(
    "modes", "what privileged instructions do in three worlds", "CPU virtualization"
  ) { report throws(LabError) in
    try Modes(ProbeRunner(kit: Probe.Kit("modes"), cr4: 0)).tell(&report)
  }
}

/// The experiment `modes`.
private struct Modes {
  let runner: ProbeRunner
  private var rows: [Row] = []
  private var baseline: Double?

  private struct Row {
    let name: String
    let host: ProbeOutcome
    let user: ProbeOutcome
    let kernel: ProbeResult
  }

  init(_ runner: ProbeRunner) throws(LabError) {
    self.runner = runner
    for probe in runner.kit.probes {
      let kernel = try runner.run(probe, .kernel, baseline: baseline)
      if probe.name == "NOP" {
        baseline = kernel.exitsEach
        continue
      }
      rows.append(
        Row(
          name: probe.name, host: runner.runOnHost(probe).outcome,
          user: try runner.run(probe, .user, baseline: nil).outcome, kernel: kernel))
    }
  }

  func tell(_ report: inout Report) {
    report.text(
      "Each instruction ran as the same bytes in three worlds: in a process of this host's user mode, "
        + "in ring 3 of a guest, and in ring 0 of a guest, each time in a virtual machine of its own. "
        + "A trap that the guest takes itself is an exception; a trap that the hypervisor takes is an "
        + "exit, which KVM may handle alone or pass on to kvmlite in user space.")
    report.table(table(report))
    tellCounts(&report)
    for row in rows {
      report.note("host/" + row.name, row.host.text)
      report.note("ring3/" + row.name, row.user.text)
      report.note("ring0/" + row.name, row.kernel.outcome.text)
    }
    report.picture(picture)
    ask(&report)
  }

  private func table(_ report: Report) -> Table {
    var table = Table(
      "What became of it",
      ["instruction", "host user mode", "guest ring 3", "guest ring 0", "#exits each"])
    for row in rows {
      let exits = row.kernel.exitsEach.map { decimal(max(0, $0), 1) } ?? Table.notMeasured
      table.add([
        row.name, row.host.text, row.user.text, row.kernel.outcome.text, exits,
      ])
    }
    table.note(
      "exits each: KVM's counter `exits` over \(ProbeRunner.count) executions in ring 0, less that of "
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

  private func tellCounts(_ report: inout Report) {
    let faults = rows.filter(\.user.isFault).count
    let agree = rows.filter { $0.host == $0.user }.count
    let silent = rows.filter { [.nothing, .ran].contains($0.kernel.outcome) }
    let emulated = rows.filter { $0.kernel.outcome == .emulated }
    let inKernel = rows.filter { $0.kernel.outcome == .kernelExit }
    let toUser = rows.filter { if case .userExit = $0.kernel.outcome { true } else { false } }
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

  private func ask(_ report: inout Report) {
    let toUser = rows.filter { if case .userExit = $0.kernel.outcome { true } else { false } }
    report.ask(
      "ring3-faults", "How many of these instructions raise an exception in the guest's ring 3?",
      .number(rows.filter(\.user.isFault).count))
    report.ask(
      "ring0-user-space", "Which of them leave the guest's ring 0 and come as far as user space?",
      .set(toUser.map(\.name)), points: 2)
    if let row = rows.first(where: { $0.name == "HLT" }), case .fault(let vector, _) = row.host {
      report.ask(
        "hlt-host", "Which exception does HLT raise in the host's user mode?",
        .words([
          GuestException.name(of: vector), String(GuestException.name(of: vector).dropFirst()),
        ])
      )
    }
    let silent = rows.filter { [.nothing, .ran].contains($0.kernel.outcome) }
    report.ask(
      "ring0-silent",
      "How many of them ran in ring 0 on the processor itself, without KVM's doing anything?",
      .number(silent.count))
    let isSame = rows.allSatisfy { $0.host == $0.user }
    report.ask(
      "same-ring3", "Do all of them do in the guest's ring 3 what they do in the host's user mode?",
      .flag(isSame))
  }

  /// The table as a grid of coloured fields.
  private var picture: Picture {
    let rowHeight = 22.0
    var picture = Picture(
      "Where each instruction traps: in the guest by an exception, in KVM, in user space, or nowhere.",
      width: 720, height: 70 + rowHeight * Double(rows.count))
    let columns = ["host user mode", "guest ring 3", "guest ring 0"]
    for (index, title) in columns.enumerated() {
      picture.label(170 + Double(index) * 180, 44, title)
    }
    picture.label(12, 20, "Where it traps", size: 15)
    for (index, row) in rows.enumerated() {
      let y = 54 + Double(index) * rowHeight
      picture.label(12, y + 15, row.name, isFixed: true)
      for (column, outcome) in [row.host, row.user, row.kernel.outcome].enumerated() {
        let x = 170 + Double(column) * 180
        picture.rectangle(x, y, 172, rowHeight - 3, fill: ProbePalette.colour(of: outcome))
        picture.label(x + 8, y + 14, outcome.text, size: 12)
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
}
