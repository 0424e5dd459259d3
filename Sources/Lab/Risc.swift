extension Experiment {
  /// Popek and Goldberg's theorem for three architectures.
  static let risc = Experiment(
    "risc", "is RISC naturally virtualizable? The theorem for x86, RISC-V and ARMv7",
    "CPU virtualization",
    variables: [
      Variable("rounds", "how often CLI is tried in each ring of the guest", 1, 1...20)
    ],
    transfer: Transfer(
      id: "cli-rounds", variable: "rounds", values: [4, 5, 6, 7], fact: "cli_exceptions"
    ) {
      "CLI is tried \($0) times in each of the guest's four rings, with IOPL 0. How many exceptions "
        + "come of it?"
    }
  ) { report throws(LabError) in
    try Risc(report.variation).tell(&report)
  }
}

/// The experiment `risc`.
private struct Risc {
  private let architectures: [Architecture]
  private let foreign: [(processor: ForeignProcessor, rows: [ForeignProcessor.Row])]
  private let missing: [ForeignProcessor]
  private let rings: GuestRings
  /// The ring that MOV from CS tells this host's user mode; nil if it can't be asked.
  private let hostRing: Int?

  /// What user mode makes of an architecture's sensitive instructions.
  struct Architecture {
    let name: String
    let userMode: String
    let unnoticed: [String]
    /// A trap that the guest doesn't see, on x86.
    let leaving: [String]
    let trapping: [String]

    var sensitive: Int { unnoticed.count + leaving.count + trapping.count }
    /// The theorem's condition: all that is sensitive is privileged.
    var holds: Bool { unnoticed.isEmpty }
  }

  init(_ variation: Variation) throws(LabError) {
    let fates = try CriticalFates(student: variation.student)
    var architectures = [
      Architecture(
        name: "x86", userMode: "ring 3 of a guest", unnoticed: fates.unnoticed,
        leaving: fates.leaving, trapping: fates.exceptions)
    ]
    var foreign: [(processor: ForeignProcessor, rows: [ForeignProcessor.Row])] = []
    var missing: [ForeignProcessor] = []
    for processor in [ForeignProcessor.riscV, .arm] {
      guard let rows = try processor.run() else {
        missing.append(processor)
        continue
      }
      foreign.append((processor, rows))
      let sensitive = rows.filter(\.isSensitive)
      architectures.append(
        Architecture(
          name: processor.name, userMode: "user mode",
          unnoticed: sensitive.filter(\.user.didRun).map(\.name), leaving: [],
          trapping: sensitive.filter { $0.user == .trapped }.map(\.name)))
    }
    (self.architectures, self.foreign, self.missing) = (architectures, foreign, missing)
    rings = try GuestRings(rounds: variation["rounds"])
    let kit = try Probe.Kit("critical")
    hostRing = kit.probes.first { $0.name == "MOV from CS" }.flatMap { probe in
      let (outcome, scratch) = ProbeRunner(kit: kit).runOnHost(probe)
      return outcome.didRun ? Int(scratch[0] & 3) : nil
    }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "\"RISC processors are naturally virtualizable\", a lecture may say, and x86 is not. The theorem of "
        + "Popek and Goldberg decides it, one architecture at a time: are all sensitive instructions "
        + "privileged, so that they trap in user mode? Here it is put to three. x86's numbers are those of "
        + "the lab `critical`. For RISC-V and ARMv7 small images, without an operating system, enter user "
        + "mode with one instruction each and see how it comes back; QEMU makes the processors.")
    report.table(verdicts)
    for (processor, rows) in foreign { report.table(table(processor, rows)) }
    tellVerdict(&report)
    report.picture(venn)
    tellRings(&report)
    note(&report)
    ask(&report)
  }

  /// Why an architecture is missing, and what to do.
  private func words(_ processor: ForeignProcessor) -> String {
    "\(processor.name) is n/a: there is no \(processor.program) in PATH. "
      + "`scripts/risc -- kvmlite lab risc` fetches it (Debian's packages, unpacked beside the others of "
      + "scripts/host, nothing installed)."
  }

  private var verdicts: Table {
    var table = Table(
      "Sensitive instructions in user mode",
      [
        "architecture", "tried in", "#sensitive", "#trap", "#leave unseen", "#run unnoticed",
        "all privileged",
      ])
    for one in architectures {
      table.add([
        one.name, one.userMode, "\(one.sensitive)", "\(one.trapping.count)",
        "\(one.leaving.count)", "\(one.unnoticed.count)", one.holds ? "yes" : "no",
      ])
    }
    for processor in missing {
      table.add(
        [processor.name, "user mode"] + [String](repeating: Table.notMeasured, count: 5))
      table.note(words(processor))
    }
    table.note(
      "leave unseen: a trap for the hypervisor that the guest doesn't see (lab `critical`).")
    return table
  }

  private func table(_ processor: ForeignProcessor, _ rows: [ForeignProcessor.Row]) -> Table {
    var table = Table(
      "\(processor.name), instruction by instruction (\(processor.program))",
      ["instruction", "sensitive", "user mode", "supervisor mode", "#told there", "#told here"])
    func told(_ fate: ForeignProcessor.Fate) -> String {
      if case .ran(let value) = fate { hex(value) } else { "" }
    }
    for row in rows {
      table.add([
        row.name, row.isSensitive ? "yes" : "", row.user.text, row.supervisor.text,
        told(row.supervisor), told(row.user),
      ])
    }
    table.note(
      "told there, told here: what it left in the first register, in supervisor and in user mode; 0 for "
        + "those that only change something. "
        + (processor.name == "ARMv7"
          ? "CPS and MSR CPSR_c: the CPSR after it, whose low five bits are the mode (0x10 user, 0x13 "
            + "supervisor) and whose bit 7 turns interrupts off."
          : "rdcycle traps because machine mode allows its counters to nobody."))
    return table
  }

  private func tellVerdict(_ report: inout Report) {
    report.heading("Verdict")
    for one in architectures {
      report.text(
        "\(one.name): \(one.trapping.count + one.leaving.count) of \(one.sensitive) sensitive "
          + "instructions trap. "
          + (one.holds
            ? "All of them are privileged: if no other breaks it, a hypervisor can run its kernels in user "
              + "mode and stand in for each, says the theorem."
            : "Unnoticed run \(one.unnoticed.joined(separator: ", ")): the condition does not hold.")
      )
    }
    if let arm = foreign.first(where: { $0.processor.name == "ARMv7" }) {
      report.text(
        "What ARMv7 does is x86's fault in another dress. "
          + arm.rows.filter { $0.isSensitive && $0.user.didRun }.map(\.name).joined(separator: ", ")
          + ": one tells the mode, as MOV from CS does, the others are to change it and are passed over, as "
          + "POPF is. ARM had to be given a mode for hypervisors, as x86 was.")
    }
    guard missing.isEmpty else { return }
    report.text(
      "So \"RISC\" decides nothing: a processor with few and simple instructions may have a sensitive one "
        + "that does not trap, and one suffices. What is not shown here: instructions whose effect in user "
        + "mode ARM leaves open (MRS SPSR, LDM with ^, SUBS PC, LR), and any other member of these families."
    )
  }

  private func tellRings(_ report: inout Report) {
    report.heading("Rings, and the second axis")
    report.table(ringTable)
    report.text(
      "Hardware virtualization gave x86 not a ring below 0 but a second axis: root mode, in which the host "
        + "runs, and guest mode (VT-x: non-root), each with four rings of its own. A hypervisor in \"Ring "
        + "-1\" is a picture, not a ring: KVM is in ring 0 of root mode, kvmlite in ring 3 of it, and a "
        + "guest can be in any of its four, as the rows say.")
    if report.emulatesRing0 {
      report.text(
        "On this back end the second axis is made of software: the processor is in the host's mode all the "
          + "time, and what the guest's rings 0 to 2 do is emulated or refused by KVM.")
    }
    report.picture(grid(report.emulatesRing0))
  }

  private var ringTable: Table {
    var table = Table("The rings of host and guest", ["whose", "#ring", "CS tells ring", "CLI"])
    table.add([
      "host: kvmlite", "3", hostRing.map { "\($0)" } ?? Table.notMeasured, "not tried",
    ])
    for row in rings.rows {
      table.add([
        "guest", "\(row.ring)", row.told.map { "\($0)" } ?? Table.notMeasured, row.cli.text,
      ])
    }
    table.note("CLI with IOPL 0 in the flags. The host's ring 0 is Linux's with KVM in it.")
    return table
  }

  // MARK: Facts and questions

  private func note(_ report: inout Report) {
    func list(_ names: [String]) -> Report.Fact { .list(names.map { .text($0) }) }
    for one in architectures {
      report.note("sensitive/" + one.name, one.sensitive)
      report.note("traps/" + one.name, one.trapping.count)
      report.note("unnoticed/" + one.name, list(one.unnoticed))
      report.note("theorem/" + one.name, one.holds)
    }
    for processor in missing { report.note("theorem/" + processor.name, Table.notMeasured) }
    for (processor, rows) in foreign {
      for row in rows {
        let key = processor.name + "/" + row.name
        report.note("user/" + key, row.user.text)
        report.note("supervisor/" + key, row.supervisor.text)
        if case .ran(let value) = row.user { report.note("told_user/" + key, hex(value)) }
        if case .ran(let value) = row.supervisor {
          report.note("told_supervisor/" + key, hex(value))
        }
      }
    }
    report.note("host_ring", hostRing.map { .number($0) } ?? .text(Table.notMeasured))
    for row in rings.rows {
      report.note(
        "guest_ring/\(row.ring)", row.told.map { .number($0) } ?? .text(Table.notMeasured))
      report.note("guest_cli/\(row.ring)", row.cli.text)
    }
    report.note("cli_exceptions", rings.exceptions)
  }

  private func ask(_ report: inout Report) {
    let place = "Sensitive instructions in user mode"
    for one in architectures where one.name != "x86" {
      let key = one.name == "ARMv7" ? "arm" : "risc-v"
      report.ask(
        key + "-traps", "How many of \(one.name)'s sensitive instructions trap in user mode?",
        .number(one.trapping.count), at: place)
      report.ask(
        key + "-unnoticed", "Which of them run there unnoticed?", .set(one.unnoticed), points: 2,
        at: "\(one.name), instruction by instruction")
    }
    if let arm = foreign.first(where: { $0.processor.name == "ARMv7" }),
      case .ran(let value)? = arm.rows.first(where: { $0.name == "MRS CPSR" })?.user
    {
      report.ask(
        "arm-mode",
        "Which mode does MRS CPSR tell ARMv7's user mode, as a number (CPSR's low 5 bits)?",
        .number(Int(value & 0x1F)), at: "ARMv7, instruction by instruction")
    }
    report.ask(
      "x86-unnoticed", "How many of x86's run in ring 3 unnoticed?",
      .number(architectures[0].unnoticed.count), at: place)
    report.ask(
      "condition", "Which of the architectures meet the theorem's condition?",
      .set(architectures.filter(\.holds).map(\.name)), points: 2, at: place)
    report.ask(
      "guest-rings", "In how many rings did the guest's code say by CS that it was?",
      .number(Set(rings.rows.compactMap(\.told)).count), at: "The rings of host and guest")
    report.ask(
      "cli-rings", "In which of the guest's rings does CLI raise an exception (by number)?",
      .set(rings.rows.filter(\.cli.isFault).map { "\($0.ring)" }),
      at: "The rings of host and guest")
  }

  // MARK: Pictures

  /// For each architecture what is sensitive and what is privileged, as sets.
  private var venn: Picture {
    let width = 300.0
    var picture = Picture(
      "Sensitive and privileged, of the instructions that were tried. The theorem wants nothing outside of "
        + "the blue.", width: width * 3 + 20, height: 268)
    picture.label(12, 22, "Is the sensitive inside the privileged?", size: 15)
    picture.legend(
      12, 46, [("#aebfda", "privileged: traps in user mode"), ("#ebb999", "sensitive")])
    for (index, one) in architectures.enumerated() {
      let x = 10 + Double(index) * width
      let caught = one.trapping.count + one.leaving.count
      let centre = x + (one.holds ? 150 : 112)
      picture.label(x + 150, 80, one.name, size: 15, anchor: .middle)
      picture.ellipse(
        centre, 150, 100, 56, fill: Picture.colours[0], stroke: Picture.colours[0])
      // Inside if it is so.
      picture.ellipse(
        one.holds ? centre : x + 178, 150, one.holds ? 62 : 96, one.holds ? 34 : 48,
        fill: Picture.colours[1], stroke: Picture.colours[1])
      picture.label(one.holds ? centre : x + 146, 156, "\(caught)", size: 17, anchor: .middle)
      if !one.holds {
        picture.label(
          x + 238, 156, "\(one.unnoticed.count)", size: 17, anchor: .middle,
          fill: Picture.colours[6])
      }
      picture.label(
        x + 150, 228, one.holds ? "the condition holds" : "\(one.unnoticed.count) run unnoticed",
        anchor: .middle, fill: one.holds ? Picture.colours[2] : Picture.colours[6])
    }
    for (index, processor) in missing.enumerated() {
      let x = 10 + Double(architectures.count + index) * width
      picture.label(x + 150, 80, processor.name, size: 15, anchor: .middle)
      picture.label(x + 150, 156, "n/a: no \(processor.program)", size: 12, anchor: .middle)
    }
    return picture
  }

  /// Host and guest by ring.
  private func grid(_ isEmulated: Bool) -> Picture {
    let (left, cell) = (170.0, 170.0)
    var picture = Picture(
      "Two axes: whose the processor is, and the ring. No ring has the number -1.", width: 870,
      height: 250)
    picture.label(12, 22, "Host and guest, each with four rings", size: 15)
    picture.legend(
      left + 190, 24,
      [("#d7e3f4", "measured here"), ("#eeeeee", "not measured"), ("#ffffff", "not used by Linux")])
    for ring in 0..<4 {
      picture.label(left + (Double(ring) + 0.5) * cell, 56, "ring \(ring)", anchor: .middle)
    }
    func draw(_ row: Int, _ ring: Int, _ fill: String, _ lines: [String]) {
      let (x, y) = (left + Double(ring) * cell, 66 + Double(row) * 90)
      picture.rectangle(x, y, cell - 6, 62, fill: fill, stroke: "#888")
      for (index, line) in lines.enumerated() {
        picture.label(
          x + (cell - 6) / 2, y + 26 + Double(index) * 18, line, size: 12, anchor: .middle)
      }
    }
    picture.label(12, 92, "host")
    picture.label(12, 110, isEmulated ? "(the processor's mode)" : "(root mode)", size: 11)
    picture.label(12, 182, "guest")
    picture.label(12, 200, isEmulated ? "(made by KVM)" : "(guest mode)", size: 11)
    draw(0, 0, "#eeeeee", ["Linux with KVM"])
    draw(0, 1, "#ffffff", [])
    draw(0, 2, "#ffffff", [])
    draw(0, 3, "#d7e3f4", ["kvmlite", "CS tells \(hostRing.map { "\($0)" } ?? "n/a")"])
    for row in rings.rows {
      draw(
        1, row.ring, "#d7e3f4",
        ["CS tells \(row.told.map { "\($0)" } ?? "n/a")", "CLI: \(row.cli.text)"])
    }
    picture.arrow(left + 60, 130, left + 60, 154)
    picture.arrow(left + 100, 154, left + 100, 130)
    picture.label(left + 110, 147, "entry and exit", size: 11)
    return picture
  }
}
