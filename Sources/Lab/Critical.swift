import Host
import KVM

extension Experiment {
  /// Popek and Goldberg's theorem put to the test.
  static let critical = Experiment(
    "critical", "sensitive instructions, and the theorem that x86 breaks", "CPU virtualization",
    variables: [
      Variable(
        "instructions", "how many sensitive instructions are tried", 20, 5...20,
        seeded: Array(14...19)),
      Variable("iopl", "IOPL in the flags of ring 3, which the kernel sets", 0, 0...3),
    ],
    transfer: Transfer(
      id: "popf-with-iopl", variable: "iopl", values: [3], fact: "popf_changes_if"
    ) {
      "The kernel has set IOPL to \($0) in ring 3's flags. How many times does the interrupt flag "
        + "change if POPF asks there once for its other value?"
    }
  ) { report throws(LabError) in
    try Critical(report.variation).tell(&report)
  }
}

/// The experiment `critical`.
private struct Critical {
  /// Sensitive instructions.
  private var rows: [Row] = []
  /// Loads and stores, which count with neither.
  private var accesses: [Row] = []
  /// Why this KVM gives guests no UMIP; nil where it does.
  private let noUMIP: String?
  private let hostHasUMIP: Bool

  fileprivate struct Row {
    let name: String
    let host: (outcome: ProbeOutcome, scratch: [UInt64])
    let user: ProbeResult
    let userWithUMIP: ProbeResult?
    let kernel: ProbeResult
    /// KVM's emulations of one execution in ring 3 that came to nothing.
    let failures: Int?

    var isControlSensitive: Bool { Critical.controlSensitive.contains(name) }
    var isBehaviourSensitive: Bool {
      !isControlSensitive || Critical.sensitiveTwice.contains(name)
    }
  }

  /// They change which resources the machine has: the interrupt flag, segments, the ring.
  private static let controlSensitive: Set<String> = [
    "POPF", "MOV to ES", "POP GS", "CALL far", "JMP far", "RET far", "INT n", "IRET",
  ]
  /// And what they do to the flags depends on the ring.
  private static let sensitiveTwice: Set<String> = ["POPF", "IRET"]
  private static let accessNames: Set<String> = ["load", "store"]

  private static let asked: Set<String> = ["POPF", "PUSHF", "MOV from CS", "PUSH GS", "INT n"]

  init(_ variation: Variation) throws(LabError) {
    let kit = try Probe.Kit("critical")
    let plain = ProbeRunner(kit: kit, settings: .init(ioPrivilege: variation["iopl"]))
    noUMIP = Self.reasonAgainstUMIP()
    hostHasUMIP = HostFlags.hasUMIP
    let guarded =
      noUMIP == nil
      ? ProbeRunner(
        kit: kit, settings: .init(cr4: Bench.Control.umip, ioPrivilege: variation["iopl"])) : nil
    var baseline: Double?
    let others = Self.accessNames.union(["NOP"])
    let sensitive = variation.choice(
      variation["instructions"], of: kit.probes.filter { !others.contains($0.name) },
      keeping: { Self.asked.contains($0.name) })
    // The baseline comes first.
    for probe in kit.probes.filter({ $0.name == "NOP" }) + sensitive
      + kit.probes.filter({ Self.accessNames.contains($0.name) })
    {
      let kernel = try plain.run(probe, .kernel, baseline: baseline)
      if probe.name == "NOP" {
        baseline = kernel.exitsEach
        continue
      }
      let row = Row(
        name: probe.name, host: plain.runOnHost(probe),
        user: try plain.run(probe, .user, baseline: nil),
        userWithUMIP: try guarded?.run(probe, .user, baseline: nil), kernel: kernel,
        failures: try plain.failedEmulations(probe))
      if Self.accessNames.contains(row.name) { accesses.append(row) } else { rows.append(row) }
    }
  }

  /// UMIP in CR4 needs CPUID.7.0:ECX[2] in the guest, or KVM refuses the register.
  private static func reasonAgainstUMIP() -> String? {
    do throws(KVMError) {
      let leaf = try System().supportedCPUID().entry(7)
      return leaf.map { $0.ecx & 1 << 2 != 0 } == true
        ? nil : "this KVM offers its guests no UMIP (CPUID leaf 7, ECX bit 2)"
    } catch { return "KVM does not say whether it has UMIP: \(error)" }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "Popek and Goldberg (1974): a machine can be virtualized by trapping if every sensitive "
        + "instruction is privileged. An instruction is privileged if it traps in user mode. It is "
        + "control-sensitive if it changes the machine's resources, behaviour-sensitive if its result "
        + "depends on the mode or on where the machine's tables are. Here a sensitive instruction is "
        + "called critical if it runs in user mode and nobody notices: sensitive without being "
        + "privileged. Where a lecture calls critical what is privileged and sensitive together, it "
        + "means the others: those that trap and emulate can serve.")
    report.table(fates)
    report.table(values)
    tellVerdict(&report)
    report.picture(picture)
    for row in rows + accesses {
      report.note("host/" + row.name, row.host.outcome.text)
      report.note("ring3/" + row.name, row.user.outcome.text)
      report.note("ring3_umip/" + row.name, row.userWithUMIP?.outcome.text ?? Table.notMeasured)
      report.note("ring0/" + row.name, row.kernel.outcome.text)
    }
    ask(&report)
  }

  private var fates: Table {
    var table = Table(
      "What becomes of each sensitive instruction",
      [
        "instruction", "control", "behaviour", "host user mode", "ring 3", "ring 3, UMIP", "ring 0",
        "#exits each",
      ])
    for row in rows + accesses {
      let isAccess = Self.accessNames.contains(row.name)
      table.add([
        row.name, row.isControlSensitive ? "yes" : "",
        isAccess ? "(yes)" : row.isBehaviourSensitive ? "yes" : "",
        row.host.outcome.text, row.user.outcome.text,
        row.userWithUMIP?.outcome.text ?? Table.notMeasured, row.kernel.outcome.text,
        row.kernel.exitsEach.map { decimal(max(0, $0)) } ?? Table.notMeasured,
      ])
    }
    table.note("control, behaviour: why it's sensitive. POPF and IRET are both.")
    table.note(
      "load, store: lectures name them, for what they reach is decided by the map (page tables). Whoever "
        + "moves memory and changes the map with it is not noticed, so by the theorem's definition "
        + "they aren't sensitive, and aren't counted below.")
    if let noUMIP { table.note("n/a under UMIP: \(noUMIP).") }
    if rows.contains(where: { $0.kernel.exitsEach == nil }) {
      table.note(
        "n/a exits: the instruction did not come to its end in ring 0, or KVM has no counters.")
    }
    noteINT(&table)
    if rows.contains(where: { $0.kernel.outcome == .notEmulated }) {
      table.note(
        "not in KVM's emulator: on a back end that runs ring 0 in software KVM gives the guest up there "
          + "(KVM_EXIT_INTERNAL_ERROR), which no hardware does.")
    }
    return table
  }

  private func noteINT(_ table: inout Table) {
    guard let row = rows.first(where: { $0.name == "INT n" }) else { return }
    if row.kernel.outcome == .other("vector 129") || row.kernel.outcome.isFault {
      table.note(
        "vector 129 is INT n that went through its gate: the gate lets ring 0 through and nobody else."
      )
    }
    guard case .fault(vector: 6, _) = row.user.outcome else { return }
    let count = row.failures.map { " (its counter `insn_emulation_fail` rose by \($0))" } ?? ""
    table.note(
      "INT n is #UD in ring 3 here: the processor raised #GP, in the host, and KVM tried to emulate the "
        + "instruction as it does with those that UMIP traps. Its emulator has no INT n in long "
        + "mode\(count), and for what it can't do in ring 3 it gives the guest #UD.")
  }

  private var values: Table {
    var table = Table(
      "What the instructions tell (nothing is said of those that only change something)",
      ["instruction", "host user mode", "ring 3", "ring 3, UMIP", "ring 0"])
    for row in rows where Self.tells(row.name) {
      table.add([
        row.name, Self.value(row.name, row.host.outcome, row.host.scratch),
        Self.value(row.name, row.user.outcome, row.user.scratch),
        row.userWithUMIP.map { Self.value(row.name, $0.outcome, $0.scratch) } ?? Table.notMeasured,
        Self.value(row.name, row.kernel.outcome, row.kernel.scratch),
      ])
    }
    table.note(
      "In the guest the GDT is at \(hex(BenchLayout.descriptorTable)), the IDT at "
        + "\(hex(BenchLayout.interruptTable)), the TSS's selector is "
        + "\(hex(UInt64(BenchLayout.taskSelector))).")
    if rows.contains(where: { $0.host.outcome == .other("SIGKILL") }) {
      table.note("SIGKILL: the host's kernel found no way to go on, and ended the process.")
    }
    if hostHasUMIP {
      table.note(
        "This host's processor has UMIP. Linux catches the trap of SGDT, SIDT, SMSW, SLDT and STR in "
          + "user mode and answers with values that it made up.")
    }
    return table
  }

  private static func tells(_ name: String) -> Bool {
    !["MOV to ES", "POP GS", "CALL far", "JMP far", "RET far", "INT n", "IRET"].contains(name)
  }

  /// What a probe left in its scratch memory.
  private static func value(_ name: String, _ outcome: ProbeOutcome, _ words: [UInt64]) -> String {
    guard outcome.didRun, words.count > 1 else { return "-" }
    switch name {
    case "SGDT", "SIDT":
      return "base \(hex(words[0] >> 16 | words[1] << 48)) limit \(hex(words[0] & 0xFFFF))"
    case "SLDT", "STR": return "selector \(hex(words[0] & 0xFFFF))"
    case "SMSW": return hex(words[0] & 0xFFFF_FFFF)
    case "PUSHF": return "\(hex(words[0])), IF=\(words[0] >> 9 & 1)"
    case "POPF": return "asked IF=\(words[1] >> 9 & 1), came IF=\(words[0] >> 9 & 1)"
    case "LAR": return "rights \(hex(words[0])), DPL \(words[0] >> 13 & 3)"
    case "VERR", "VERW": return words[0] & 1 == 1 ? "allowed" : "not allowed"
    case "MOV from CS": return "selector \(hex(words[0])), ring \(words[0] & 3)"
    default: return hex(words[0])
    }
  }

  // MARK: The verdict

  /// What ring 3 does with the sensitive instructions, by who notices.
  fileprivate struct Division {
    /// They ran, and nobody noticed: the critical ones.
    var unnoticed: [String] = []
    /// They ran, because they left for the hypervisor, of which the guest saw nothing.
    var leaving: [String] = []
    /// They raised an exception in the guest.
    var exceptions: [String] = []

    fileprivate init(_ rows: [Row], _ result: (Row) -> ProbeResult?) {
      for row in rows {
        switch result(row)?.outcome {
        case .nothing?, .ran?: unnoticed.append(row.name)
        case .kernelExit?, .emulated?, .userExit?: leaving.append(row.name)
        case .fault?: exceptions.append(row.name)
        default: break
        }
      }
    }

    /// A list and its length, in words.
    static func told(_ names: [String]) -> String {
      names.isEmpty ? "none" : "\(names.count) (" + names.joined(separator: ", ") + ")"
    }
  }

  fileprivate var plain: Division { Division(rows, \.user) }
  private var guarded: Division { Division(rows, \.userWithUMIP) }
  /// What raises an exception once UMIP is on, and not before.
  private var mended: [String] {
    let before = plain.exceptions
    return guarded.exceptions.filter { !before.contains($0) }
  }

  private var leaving: [String] {
    rows.filter { ($0.kernel.exitsEach ?? 0) > 0.5 }.map(\.name)
  }

  /// What the probe `name` left in ring 3; nil if it didn't run there.
  private func told(_ name: String) -> [UInt64]? {
    rows.first { $0.name == name && $0.user.outcome.didRun }?.user.scratch
  }

  /// Whether POPF, which was to turn the interrupt flag over, left it as it was.
  private var popfIsSilent: Bool? {
    told("POPF").map { words in (words[0] ^ words[1]) >> 9 & 1 == 1 }
  }

  /// Those that told ring 3 of the guest something else than the guest's own state.
  private var leaks: [String] {
    var names: [String] = []
    // The guest's ring-3 code has selector 0x20 with the ring in its low bits; its IF is 0.
    if let selector = told("MOV from CS")?[0], selector != 0x23 { names.append("MOV from CS") }
    if let flags = told("PUSHF")?[0], flags >> 9 & 1 != 0 { names.append("PUSHF") }
    if let selector = told("PUSH GS")?[0], selector != 0x1B { names.append("PUSH GS") }
    return names
  }

  private func tellVerdict(_ report: inout Report) {
    let (plain, guarded) = (self.plain, self.guarded)
    report.heading("Verdict")
    report.text(
      "Of \(rows.count) sensitive instructions in the guest's ring 3, UMIP off: run and nobody notices, "
        + "the critical ones, \(Division.told(plain.unnoticed)); leave for the hypervisor, a trap that "
        + "the guest doesn't see, \(Division.told(plain.leaving)); raise an exception, "
        + "\(Division.told(plain.exceptions)). "
        + (plain.exceptions.count == rows.count
          ? "The theorem's condition holds." : "So x86 does not meet the theorem's condition."))
    if report.emulatesRing0 && !plain.leaving.isEmpty {
      report.text(
        "Those that leave do so because the host has UMIP on in its own CR4, and ring 3 of the guest "
          + "runs on the host's processor, whatever the guest's CR4 says.")
    }
    report.note("sensitive", rows.count)
    report.note("critical", Self.list(plain.unnoticed))
    report.note("ring3_leaves", Self.list(plain.leaving))
    report.note("ring3_exceptions", Self.list(plain.exceptions))
    if noUMIP == nil {
      report.text(
        "With UMIP on: unnoticed \(Division.told(guarded.unnoticed)); leave "
          + "\(Division.told(guarded.leaving)); raise an exception "
          + "\(Division.told(guarded.exceptions)).")
      report.note("critical_umip", Self.list(guarded.unnoticed))
    }
    if popfIsSilent == true {
      report.text(
        "POPF is the worst of them: in ring 3 it ran, and the interrupt flag that it was to change stayed "
          + "as it was. No trap, no error: a kernel run that way believes what isn't so."
      )
    }
    if let popfIsSilent { report.note("popf_changes_if", popfIsSilent ? 0 : 1) }
    report.note("leaks", Self.list(leaks))
    if !leaks.isEmpty {
      report.text(
        "On this back end the theorem bites: \(leaks.joined(separator: ", ")) told the guest's ring "
          + "3 of the host and not of the guest, whose CS is 0x23, whose GS is 0x1b and whose interrupt "
          + "flag is 0. Ring 3 "
          + "runs on the processor here without VT-x or AMD-V below it, and what doesn't trap can't be "
          + "mended by any hypervisor.")
    }
    report.text(
      report.emulatesRing0
        ? "What hardware virtualization traps of them is n/a here, for this back end emulates ring 0: run "
          + "the experiment on a host with AMD-V or VT-x (docs/hosts.md has one in software)."
        : "Did hardware virtualization mend this by trapping them? In ring 0, \(leaving.count) of "
          + "\(rows.count) left the guest"
          + (leaving.isEmpty ? "." : ": \(leaving.joined(separator: ", ")).")
          + " It need not trap them: the guest has a ring 0, descriptor tables and flags of its own, "
          + "so what these instructions tell is the truth about the guest.")
    report.note(
      "ring0_leaves",
      report.emulatesRing0 ? .text(Table.notMeasured) : Self.list(leaving))
    report.note("umip", noUMIP == nil)
    report.text(
      "\"There are ten such instructions\", a lecture may say, and \"hardware virtualization traps them "
        + "all\". Robin and Irvine (2000) count seventeen, for the Pentium, where some of these rows "
        + "share a name and IRET isn't one; and the column `exits each` is what hardware traps. The "
        + "rows above are what this machine does.")
  }

  private static func list(_ names: [String]) -> Report.Fact { .list(names.map { .text($0) }) }

  private func ask(_ report: inout Report) {
    let plain = self.plain
    let where3 = "in the guest's ring 3, UMIP off (loads and stores apart)"
    report.ask(
      "critical-count", "How many of these instructions run unnoticed \(where3)?",
      .number(plain.unnoticed.count), points: 2, at: "What becomes of each sensitive instruction")
    report.ask(
      "leaving-count",
      "How many leave for the hypervisor \(where3), without the guest's seeing it?",
      .number(plain.leaving.count), at: "What becomes of each sensitive instruction")
    report.ask(
      "exception-count", "How many raise an exception \(where3)?",
      .number(plain.exceptions.count), at: "What becomes of each sensitive instruction")
    if noUMIP == nil {
      report.ask(
        "umip-mends", "Which raise an exception once UMIP is on, and not before?", .set(mended),
        points: 2, at: "What becomes of each sensitive instruction")
    }
    if let popfIsSilent {
      report.ask(
        "popf-silent", "Does POPF in ring 3 leave the interrupt flag as it was, without a trap?",
        .flag(popfIsSilent), at: "What the instructions tell")
    }
    if let row = rows.first(where: { $0.name == "MOV from CS" }) {
      report.ask(
        "cs-ring", "What are the low two bits of the selector that MOV from CS gives in ring 3?",
        .number(Int(row.user.scratch[0] & 3)), at: "What the instructions tell")
    }
    report.ask(
      "leaks",
      "Which of MOV from CS, PUSHF and PUSH GS tell the guest's ring 3 something that is the host's?",
      .set(leaks), at: "What the instructions tell")
    report.ask(
      "theorem", "Does every sensitive instruction raise an exception in ring 3 (UMIP off)?",
      .flag(plain.exceptions.count == rows.count), at: "Verdict")
    guard !report.emulatesRing0 else { return }
    report.ask(
      "hardware-traps", "Which of these instructions leave the guest when its ring 0 runs them?",
      .set(leaving), at: "What becomes of each sensitive instruction")
  }

  /// A grid: green where it runs unseen, blue where it traps.
  private var picture: Picture {
    let rowHeight = 20.0
    let all = rows + accesses
    var picture = Picture(
      "Sensitive instructions: who notices them, by ring.", width: 900,
      height: 88 + rowHeight * Double(all.count))
    picture.label(12, 20, "Is every sensitive instruction privileged?", size: 15)
    picture.legend(12, 42, ProbePalette.legend)
    let titles = ["host user mode", "ring 3", "ring 3, UMIP", "ring 0"]
    for (index, title) in titles.enumerated() {
      picture.label(150 + Double(index) * 186, 68, title)
    }
    for (index, row) in all.enumerated() {
      let y = 76 + Double(index) * rowHeight
      picture.label(12, y + 14, row.name, isFixed: true)
      let outcomes = [
        row.host.outcome, row.user.outcome, row.userWithUMIP?.outcome, row.kernel.outcome,
      ]
      for (column, outcome) in outcomes.enumerated() {
        let x = 150 + Double(column) * 186
        let colour = outcome.map(ProbePalette.colour) ?? "#ffffff"
        picture.rectangle(x, y, 180, rowHeight - 3, fill: colour)
        picture.label(x + 8, y + 13, outcome?.text ?? Table.notMeasured, size: 12)
      }
    }
    return picture
  }
}

/// What ring 3 of a guest makes of x86's sensitive instructions, by name.
struct CriticalFates {
  /// They run, and nobody notices.
  let unnoticed: [String]
  /// They leave for the hypervisor.
  let leaving: [String]
  /// They raise an exception.
  let exceptions: [String]

  /// Tries those that the experiment `critical` has for `student`.
  init(student: String?) throws(LabError) {
    let variation: Variation
    do { variation = try Variation(of: .critical, student: student) } catch {
      throw .unexpected("\(error)")
    }
    let division = try Critical(variation).plain
    (unnoticed, leaving) = (division.unnoticed, division.leaving)
    exceptions = division.exceptions
  }
}

/// What this host's processor can do, by the kernel's names.
enum HostFlags {
  /// Has UMIP, so that five instructions that tell of the host don't run in ring 3.
  static var hasUMIP: Bool { contains("umip") }
  /// Can make CPUID raise an exception in ring 3, by which a KVM without hardware's help answers it.
  static var hasCPUIDFaulting: Bool { contains("cpuid_fault") }

  private static func contains(_ flag: String) -> Bool {
    guard let file = try? FileDescriptor(opening: "/proc/cpuinfo", [.readOnly]),
      let bytes = try? file.read(atMost: 8192)
    else { return false }
    return String(decoding: bytes, as: UTF8.self)
      .split(whereSeparator: { $0 == " " || $0.isNewline }).contains(Substring(flag))
  }
}
