extension Experiment {
  /// Virtualization without hardware's help and without changing the kernel's source.
  static let translation = Experiment(
    "translation", "binary translation, against trap and emulate and para-virtualization",
    "CPU virtualization",
    variables: [
      Variable(
        "rounds", "rounds that each kernel does", 100, 3...200,
        seeded: Array(stride(from: 40, through: 180, by: 7)))
    ],
    transfer: Transfer(
      id: "unchained-exits", variable: "rounds", values: [12, 17, 23, 29, 190, 195],
      fact: "exits/loop/translation"
    ) {
      "How many exits does the kernel `loop` take for \($0) rounds, translated and not chained?"
    }
  ) { report throws(LabError) in
    try Translation(report.variation["rounds"]).tell(&report)
  }
}

/// The experiment `translation`.
private struct Translation {
  private static let kernels = ["loop", "calls", "irq", "device", "self"]
  /// What a para-virtual kernel has in its place is in the same guest, under this name.
  private static let paraVirtual = ", para-virtual"

  private let rounds: Int
  private var rows: [Row] = []

  private struct Row {
    let kernel: String
    let way: KernelRun.Way
    let run: KernelRun
    let isRight: Bool
    var key: String { "\(kernel)/\(way.rawValue)" }
  }

  init(_ rounds: Int) throws(LabError) {
    self.rounds = rounds
    let kit = try Probe.Kit("translation")
    for kernel in Self.kernels {
      var truth: KernelRun.Outcome?
      // Only that kernel has an IN.
      for way in KernelRun.Way.allCases where way != .adapted || kernel == "device" {
        let name = kernel + (way == .paraVirtual ? Self.paraVirtual : "")
        let run = try KernelRun(kit.image, entry: kit.address(of: name), rounds: rounds, way)
        if way == .ring0 { truth = run.outcome }
        rows.append(
          Row(
            kernel: kernel, way: way, run: run,
            // Its code is elsewhere, and so is an address in RBX.
            isRight: way == .paraVirtual
              ? run.outcome.isLike(truth) : run.outcome == truth))
      }
    }
  }

  private func row(_ kernel: String, _ way: KernelRun.Way) -> Row? {
    rows.first { $0.kernel == kernel && $0.way == way }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "Five small kernels, \(rounds) rounds each, that were written for ring 0: `loop` has a critical "
        + "section in each round (PUSHF, CLI, POPF), `calls` a call in it; `irq` is interrupted after "
        + "each critical section, and asleep; `device` prints what a device has, when another is "
        + "ready; `self` changes an instruction that it has run. They run in ring 0, which is the "
        + "truth; in ring 3 by trap and emulate; in ring 3 translated, in up to four ways; and "
        + "rewritten by hand, para-virtual.")
    report.table(ways)
    tellMeaning(&report)
    if let unit = busiest("loop", .chained) { report.table(sideBySide(unit)) }
    if let run = row("calls", .hashed)?.run, let cache = run.cache {
      report.picture(TranslationPictures.units(cache, "calls"))
    }
    if let run = row("calls", .translated)?.run, let cache = run.cache {
      report.picture(TranslationPictures.units(cache, "calls, not chained"))
    }
    report.table(costs)
    for row in rows {
      report.note("right/" + row.key, row.isRight)
      report.note("exits/" + row.key, row.run.exits)
      guard let cache = row.run.cache else { continue }
      report.note("units/" + row.key, cache.units.count)
      report.note("chained/" + row.key, cache.edges.values.count { $0 })
      report.note("drops/" + row.key, cache.drops)
      report.note("loads/" + row.key, cache.loads)
    }
    ask(&report)
  }

  private var ways: Table {
    var table = Table(
      "The same kernels by way",
      [
        "kernel", "way", "as in ring 0", "#exits", "#units", "#guest's bytes", "#translated to",
        "#dropped", "#INs made loads",
      ])
    for row in rows {
      let cache = row.run.cache
      table.add([
        row.kernel, row.way.rawValue,
        row.isRight ? "yes" : row.run.outcome.crash.map { "no, \($0)" } ?? "no",
        "\(row.run.exits)",
        cache.map { "\($0.units.count)" } ?? "",
        cache.map { "\($0.units.reduce(0) { $0 + $1.guestBytes })" } ?? "",
        cache.map { "\($0.byteCount)" } ?? "", cache.map { "\($0.drops)" } ?? "",
        cache.map { "\($0.loads)" } ?? "",
      ])
    }
    table.note(
      "as in ring 0: what the kernel left in memory and in its registers, what it printed, and whether "
        + "interrupts are on in the end.")
    table.note(
      "exits: returns of KVM_RUN, the last one too; in ring 0 without those by which the lab learns that "
        + "interrupts are on again.")
    table.note("IN adapted: an IN that called out \(TranslationCache.often) times becomes a load.")
    table.note(
      "dropped: how often the kernel wrote to its code, and translations were thrown away.")
    return table
  }

  private func tellMeaning(_ report: inout Report) {
    report.heading("What it shows")
    if let loop = row("loop", .trapAndEmulate), let truth = row("loop", .ring0) {
      report.text(
        "Trap and emulate is \(loop.isRight ? "right" : "wrong") for `loop`: in ring 0 interrupts are "
          + "\(truth.run.outcome.interruptsAreOn ? "on" : "off") in the end, on the virtual processor "
          + "\(loop.run.outcome.interruptsAreOn ? "on" : "off"), for POPF didn't trap; and MOV from CS "
          + "gave \(hex(loop.run.outcome.words[2])) where ring 0 has "
          + "\(hex(truth.run.outcome.words[2])). It is wrong differently on other hosts.")
    }
    let wrong = rows.filter { $0.way != .trapAndEmulate && !$0.isRight }
    report.text(
      "Translation is \(wrong.isEmpty ? "right for all of them" : "wrong somewhere: see the table"): what "
        + "would trap, or ought to, is never run. CLI, STI, PUSHF, POPF and MOV from CS became a few "
        + "instructions that use a virtual interrupt flag in memory, SIDT, SMSW and MOV from CR3 loads, "
        + "and none of them needs an exit.")
    if let plain = row("loop", .translated)?.run.exits,
      let chained = row("loop", .chained)?.run.exits,
      let calls = row("calls", .chained)?.run.exits, let hashed = row("calls", .hashed)?.run.exits
    {
      report.text(
        "Where a unit ends, its translation leaves to ask for the next: \(plain) exits for `loop`. Chained, "
          + "the question is replaced by a jump once it's answered: \(chained). A return's target isn't "
          + "known in advance, so `calls` still has \(calls); looking the return address up in a "
          + "table, \(hashed).")
    }
    if let irq = row("irq", .chained), let wrong = row("irq", .trapAndEmulate) {
      report.text(
        "`irq` shows what the flag is for. Its device interrupts inside a critical section and must "
          + "wait until POPF ends it: translated, POPF looks for what is pending (by JRCXZ, which "
          + "leaves the flags alone), and the handler counts \(irq.run.outcome.registers[5]) interrupts, as "
          + "in ring 0. By trap and emulate nobody hears of POPF, the virtual flag stays off, and it "
          + "counts \(wrong.run.outcome.registers[5]). Each interrupt is three exits: the OUT that "
          + "raises it, its coming in, and IRETQ.")
    }
    if let plain = row("device", .hashed), let adapted = row("device", .adapted) {
      report.text(
        "An IN that calls out often becomes a load of a shadow register, which the device keeps up to "
          + "date: `device` has \(plain.run.exits) exits without that and \(adapted.run.exits) with it. "
          + "It may only be done where reading changes nothing: the other port's IN takes a byte from a "
          + "queue, and stays.")
    }
    report.text(
      "What this is not: VMware's translator protects its cache from the guest (by segment limits), and "
        + "its callouts stay in the processor's ring; here the cache is ordinary memory of the guest, "
        + "and each callout is a full exit. An interrupt comes only where the kernel lets it in or "
        + "left anyway, not between any two instructions. Addresses relative to RIP are refused, as is "
        + "any instruction it doesn't know.")
  }

  /// The unit that the kernel's rounds are in.
  private func busiest(_ kernel: String, _ way: KernelRun.Way) -> Translator.Unit? {
    row(kernel, way)?.run.cache?.units.first { unit in
      unit.pieces.contains { $0.instruction.kind == .popFlags }
        && !unit.pieces.contains { $0.instruction.kind == .sti }
    }
  }

  private func sideBySide(_ unit: Translator.Unit) -> Table {
    var table = Table(
      "A unit of `loop`, instruction by instruction",
      ["at", "guest's", "translated", "#bytes", "how"])
    for piece in unit.pieces {
      let code = TranslationPictures.bytes(piece.code)
      table.add([
        hex(piece.instruction.address), TranslationPictures.bytes(piece.instruction.bytes),
        code.count > 40 ? code.prefix(36) + " ..." : code, "\(piece.code.count)",
        piece.way.rawValue,
      ])
    }
    table.note(
      "copied: the same bytes. inline: others that do the same to the virtual processor. callout: f4, an "
        + "HLT, which faults in ring 3 and comes to kvmlite. ending: where the unit may go elsewhere."
    )
    return table
  }

  private var costs: Table {
    var table = Table(
      "What one RDTSC cost VMware on a Pentium 4, quoted from memory of Adams and Agesen 2006",
      ["way", "#cycles"])
    for (way, cycles) in [
      ("trap and emulate", "2030"), ("callout from the translation", "1254"),
      ("inline in the translation", "216"),
    ] { table.add([way, cycles]) }
    table.note(
      "Theirs, not measured here, and not looked up: compare with the paper before you quote them.")
    return table
  }

  private func ask(_ report: inout Report) {
    let ways = "The same kernels by way"
    let right = rows.filter { $0.kernel == "loop" && $0.way != .ring0 && $0.isRight }
    report.ask(
      "loop-right",
      "Is `loop` as in ring 0 by trap and emulate, by translation, and para-virtual? Name those that are, "
        + "of: trap and emulate, translation, para-virtual",
      .set(
        right.map(\.way).filter { [.trapAndEmulate, .translated, .paraVirtual].contains($0) }
          .map(\.rawValue)), points: 2, at: ways)
    for (id, kernel, way) in [
      ("loop-chained", "loop", KernelRun.Way.chained), ("calls-chained", "calls", .chained),
      ("calls-hashed", "calls", .hashed), ("irq-chained", "irq", .chained),
      ("device-adapted", "device", .adapted),
    ] {
      guard let row = row(kernel, way) else { continue }
      report.ask(
        id, "How many exits has `\(kernel)` by: \(way.rawValue)?", .number(row.run.exits), at: ways)
    }
    if let unit = busiest("loop", .chained) {
      report.ask(
        "loop-copied", "How many instructions of the shown unit of `loop` were copied?",
        .number(unit.pieces.count { $0.way == .copied }), at: "A unit of `loop`")
    }
    if let row = row("irq", .trapAndEmulate) {
      report.ask(
        "irq-lost", "How many interrupts does `irq` get by trap and emulate?",
        .number(Int(row.run.outcome.registers[5])), points: 2, at: "What it shows")
    }
    if let row = row("self", .chained) {
      report.ask(
        "self-drops", "How often were translations of `self` dropped?",
        .number(row.run.cache?.drops ?? 0), at: ways)
    }
  }
}

extension KernelRun.Outcome {
  /// Whether it's the same but for RBX.
  fileprivate func isLike(_ other: KernelRun.Outcome?) -> Bool {
    guard var other, other.registers.count == registers.count, registers.count > 1 else {
      return false
    }
    other.registers[1] = registers[1]
    return self == other
  }
}

/// The pictures of `translation`.
enum TranslationPictures {
  private static func colour(_ way: Translator.Way) -> String {
    switch way {
    case .copied: "#d9ead3"
    case .inline: "#fff2cc"
    case .callout: "#f9cb9c"
    case .ending: "#cfe2f3"
    }
  }

  static func bytes(_ bytes: [UInt8]) -> String {
    bytes.map { String(hex(UInt64($0), 2).dropFirst(2)) }.joined(separator: " ")
  }

  /// The units of a kernel, each a row of its instructions before and after; at the right, the ways
  /// between them.
  static func units(_ cache: TranslationCache, _ name: String) -> Picture {
    let (left, top, row) = (120.0, 76.0, 58.0)
    let units = cache.units
    let widest = units.map { max($0.guestBytes, $0.code.count) }.max() ?? 1
    let scale = min(7, 620 / Double(widest))
    let right = left + Double(widest) * scale + 24
    var picture = Picture(
      "The units of `\(name)`: the kernel's bytes above, their translation below, and where they go on.",
      width: right + 40 + Double(cache.edges.count) * 14,
      height: top + row * Double(units.count) + 10)
    picture.label(12, 22, "Units of \(name)", size: 15)
    picture.legend(
      12, 44,
      [
        (colour(.copied), "copied"), (colour(.inline), "inline"), (colour(.callout), "callout"),
        (colour(.ending), "ending"),
      ])
    picture.label(320, 44, "solid: a jump; dashed: asked for by an exit each time", size: 11)
    for (index, unit) in units.enumerated() {
      let y = top + Double(index) * row
      picture.label(12, y + 14, hex(unit.start), isFixed: true)
      picture.label(12, y + 30, "\(unit.pieces.count) instructions", size: 10, fill: "#666")
      var (before, after) = (left, left)
      for piece in unit.pieces {
        let tip = bytes(piece.instruction.bytes) + " -> " + bytes(piece.code)
        let widths = (Double(piece.instruction.bytes.count), Double(piece.code.count))
        for (x, y, width) in [
          (before, y, widths.0 * scale), (after, y + 18, widths.1 * scale),
        ] {
          picture.rectangle(x, y, width, 14, fill: colour(piece.way), stroke: "#888", tip: tip)
        }
        before += widths.0 * scale
        after += widths.1 * scale
      }
    }
    let order = cache.edges.keys.sorted { ($0.from, $0.to) < ($1.from, $1.to) }
    for (lane, edge) in order.enumerated() {
      // The last of a unit's translations, if there were several.
      guard let from = units.lastIndex(where: { $0.start == edge.from }),
        let to = units.lastIndex(where: { $0.start == edge.to })
      else { continue }
      let x = right + 20 + Double(lane) * 14
      let (y1, y2) = (top + Double(from) * row + 24, top + Double(to) * row + 8)
      let isDashed = cache.edges[edge] != true
      let colour = Picture.colours[lane % Picture.colours.count]
      picture.line(right, y1, x, y1, stroke: colour, width: 1.5, isDashed: isDashed)
      picture.line(x, y1, x, y2, stroke: colour, width: 1.5, isDashed: isDashed)
      picture.line(x, y2, right + 6, y2, stroke: colour, width: 1.5, isDashed: isDashed)
      picture.arrow(right + 8, y2, right, y2)
    }
    return picture
  }
}
