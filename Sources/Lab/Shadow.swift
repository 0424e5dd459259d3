import KVM
import Memory

extension Experiment {
  /// Memory and processor virtualized without help from hardware.
  static let shadow = Experiment(
    "shadow", "shadow page tables, and a kernel that runs de-privileged", "Memory virtualization",
    variables: [
      Variable(
        "pages", "how many pages the kernel maps", 64, 8...256,
        seeded: Array(stride(from: 24, through: 96, by: 4))),
      Variable(
        "steps", "how many steps it does", 600, 100...900,
        seeded: Array(stride(from: 420, through: 780, by: 20))),
    ],
    transfer: Transfer(
      id: "roots", variable: "steps", values: [250, 350, 820, 860, 890], fact: "root_loads"
    ) {
      "The kernel loads CR3 once at first and then after every 99th of each hundred steps. How many "
        + "roots does it ask for in \($0) steps?"
    }
  ) { report throws(LabError) in
    try Shadow(report).tell(&report)
  }
}

/// The experiment `shadow`.
private struct Shadow {
  private static let orders: UInt64 = 0x20_0000
  private static let shadowed: UInt64 = 0x1000_0000
  private static let plain: UInt64 = 0x60_0000

  private let script: ShadowScript
  private let shadow: Run
  private let nested: Run
  private let kernel: Deprivileged
  /// Whether the kernel's own tables are walked by the processor, or shadowed by KVM; nil if unknown.
  private let isNested: Bool?
  private let isEmulated: Bool
  private let steps: Int
  private let pages: Int

  /// What one run of the guest came to.
  private struct Run {
    var work = ShadowPager.Work()
    var userExits = 0
    var kernelExits: Int?
    var mismatches = 0
    var disagreements = 0
    var checks = 0
  }

  init(_ report: Report) throws(LabError) {
    isNested = report.backEnd?.hasNestedPaging
    isEmulated = report.emulatesRing0
    let variation = report.variation
    (steps, pages) = (variation["steps"], variation["pages"])
    func makeScript(_ tables: UInt64) -> ShadowScript {
      ShadowScript(
        count: variation["steps"], pages: variation["pages"], variation.random(7), tables: tables)
    }
    script = makeScript(Self.shadowed)
    // Emulated ring 0 has no shadow: the emulator walks the tables each time.
    shadow = try Self.run(
      script, pages, tables: Self.shadowed, isShadowed: true,
      isTwice: isNested == false && !report.emulatesRing0)
    nested = try Self.run(
      makeScript(Self.plain), pages, tables: Self.plain, isShadowed: false)
    kernel = try Deprivileged()
  }

  // MARK: Running

  private static func run(
    _ script: ShadowScript, _ pages: Int, tables: UInt64, isShadowed: Bool, isTwice: Bool = false
  ) throws(LabError) -> Run {
    let kit = try Probe.Kit("shadow")
    let empty = [UInt8](repeating: 0, count: 0x4000)
    let bench = try Bench(
      kit.image, what: "the kernel of shadow",
      roms: isShadowed ? [(GuestAddress(tables), empty)] : [])
    // What every kernel has from the start: its own code, here the first GiB.
    let open: UInt64 = 7
    try bench.store([tables + 0x1000 | open], at: tables)
    try bench.store([BenchLayout.pageTables + 0x2000 | open], at: tables + 0x1000)
    for frame in 0..<pages {
      try bench.store(
        [ShadowScript.value(frame)], at: ShadowScript.frames + UInt64(frame) << 12)
    }
    try bench.store(script.words, at: orders)
    try bench.setGate(14, to: kit.address(of: "(page fault)"))
    try bench.start(at: kit.address(of: "kernel"), .kernel) { registers in
      (registers.r13, registers.r12) = (orders, isShadowed ? 1 : 0)
    }
    var run = Run()
    let counter = bench.exitCounter()
    let before = try counter?.value()
    try answer(ShadowPager(bench, pages: pages, isShadowed: isTwice), tables: tables, &run)
    run.kernelExits = try counter.flatMap { counter throws(LabError) in
      let after = try counter.value()
      return before.map { after - $0 }
    }
    for (index, expected) in script.expected.enumerated() {
      guard let expected else { continue }
      let result = try bench.words(at: orders + UInt64(index * 32 + 24), 1)[0]
      if result != expected { run.mismatches += 1 }
    }
    return run
  }

  /// Answers the guest until it halts by itself.
  private static func answer(
    _ pager: ShadowPager, tables: UInt64, _ run: inout Run
  ) throws(LabError) {
    var pager = pager
    let bench = pager.bench
    var root: UInt64 = 0
    while true {
      let exit = try bench.run()
      if case .halt = exit {
        if let exception = try bench.exception() {
          throw .unexpected("the kernel of shadow raised \(exception.name)")
        }
        run.work = pager.work
        return
      }
      run.userExits += 1
      switch exit {
      case .mmio(let mmio) where mmio.isWrite: try pager.wrote(mmio, tables: tables)
      case .portIO(let io) where io.port == 0x94 && io.isWrite:
        root = try pager.load(root: bench.vcpu.value(of: io, 0))
      case .portIO(let io) where io.port == 0x94: bench.vcpu.setValue(root, of: io, 0)
      case .portIO(let io) where io.port == 0x90 && !io.isWrite:
        let special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
        // The stub pushed RAX: the error code is behind it.
        let error = try bench.words(at: bench.registers().rsp + 8, 1)[0]
        let isFilled = try pager.fault(special.cr2, error: error)
        bench.vcpu.setValue(isFilled ? 0 : 1, of: io, 0)
      default: throw .unexpected("the kernel of shadow left by \(exit.reason.name)")
      }
      run.checks += 1
      run.disagreements += try pager.disagreements()
    }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "The guest's kernel maps, unmaps and protects \(pages) pages at random and reads and "
        + "writes them, \(steps) steps in all. First with shadow paging by kvmlite: its tables are "
        + "in a read-only slot, CR3 leads to others that kvmlite fills when the guest faults. Then the "
        + "same kernel with its own tables in CR3. A model says what each step must give.")
    report.table(counts)
    report.table(comparison)
    report.heading("What it shows")
    report.text(
      "\(shadow.mismatches == 0 ? "Every" : "Not every") read, write and fault was as the model says "
        + "(\(shadow.mismatches) differ), and after each of \(shadow.checks) exits the shadow was held "
        + "against the guest's tables: \(shadow.disagreements) entries allowed more than those. "
        + "The shadow may have less, for a fault fills it; never more.")
    if shadow.work.flushes > 0 {
      report.text(
        "This host has no nested paging, so KVM shadows what is in CR3, and that is kvmlite's shadow: a "
          + "shadow of a shadow. KVM sees what a guest writes to its tables, but not what kvmlite "
          + "changes there. So after each of \(shadow.work.flushes) changes kvmlite took the memory "
          + "slot away and gave it back, which makes KVM forget all of its shadow. KVM's exits of the "
          + "first row are mostly its building that anew.")
    }
    report.text(
      "The same kernel with its own tables came to user space \(nested.userExits) times, with shadow "
        + "paging \(shadow.userExits) times: each of \(shadow.work.tableWrites) table writes, each first "
        + "use of a page, each first write to a clean one, each fault, even the guest's own. This is "
        + "what nested paging saves, and pays for with longer walks (lab `tlb`).")
    report.text(ownMeaning(report))
    report.picture(picture)
    tellKernel(&report)
    noteFacts(&report)
    ask(&report)
  }

  private var counts: Table {
    var table = Table("What the kernel did, and what kvmlite had to do for it", ["what", "#times"])
    let work = shadow.work
    for (name, count) in [
      ("pages mapped", script.maps), ("unmapped", script.unmaps), ("protected", script.protects),
      ("reads", script.reads), ("writes", script.writes), ("of both, faults", script.faults),
      ("table writes seen (MMIO)", work.tableWrites), ("shadow entries filled", work.fills),
      ("of them later made writable", work.upgrades), ("pages found dirty first", work.dirtied),
      ("shadow entries dropped", work.zapped),
      ("faults given to the guest", work.guestFaults), ("roots asked for by port", work.rootLoads),
    ] { table.add([name, "\(count)"]) }
    return table
  }

  /// Who translates the kernel's own tables.
  private var owner: String {
    switch isNested {
    case _ where isEmulated: "KVM's emulator"
    case true?: Self.nestedPaging
    case false?: Self.shadowOfKVM
    case nil: "KVM or the processor"
    }
  }

  private static let nestedPaging = "nested paging"
  private static let shadowOfKVM = "KVM's shadow"

  private var comparison: Table {
    var table = Table(
      "The same kernel, by who makes its tables work",
      ["who", "tables in CR3", "#to user space", "#KVM's exits", "#wrong results"])
    func add(_ name: String, _ tables: String, _ run: Run) {
      table.add([
        name, tables, "\(run.userExits)", run.kernelExits.map { "\($0)" } ?? Table.notMeasured,
        "\(run.mismatches)",
      ])
    }
    add("kvmlite's shadow", "kvmlite's", shadow)
    add(owner, "the kernel's", nested)
    for other in [Self.shadowOfKVM, Self.nestedPaging] where other != owner {
      let none = Table.notMeasured
      table.add([other, "the kernel's", none, none, none])
      table.note(
        other == Self.nestedPaging
          ? "n/a: this host has no nested paging; the one of scripts/host has."
          : "n/a: KVM's own shadow paging, the like of the first row, is on hosts without nested paging: "
            + "scripts/host --npt off.")
    }
    if shadow.kernelExits == nil { table.note("n/a: this kernel has no KVM_GET_STATS_FD.") }
    return table
  }

  private func ownMeaning(_ report: Report) -> String {
    let exits = nested.kernelExits.map { "\($0)" } ?? Table.notMeasured
    if report.emulatesRing0 {
      return
        "On this back end ring 0 is emulated, and the emulator walks the kernel's tables at each "
        + "access: no shadow is needed, and KVM's \(exits) exits of the second row are no measure of one."
    }
    switch isNested {
    case false?:
      return
        "Like with like: KVM does inside the kernel what kvmlite does in user space, in \(exits) "
        + "exits that came no further than KVM. With nested paging the same kernel needs hardly any."
    case true?:
      return
        "With nested paging KVM saw \(exits) exits: only pages that were touched for the first time."
    case nil: return "Whether KVM or the processor did the translating this host doesn't say."
    }
  }

  private func tellKernel(_ report: inout Report) {
    report.heading("A kernel in ring 3")
    report.text(
      "The other half of virtualization without hardware: the guest's kernel runs in ring 3, its "
        + "privileged instructions trap, and kvmlite does them on a virtual processor.")
    var table = Table("Its traps", ["##", "at", "instruction", "what kvmlite did"])
    for (index, trap) in kernel.traps.enumerated() {
      table.add(["\(index + 1)", hex(trap.address), trap.instruction, trap.effect])
    }
    report.table(table)
    report.text(
      "After STI the kernel turned interrupts off again by POPF. That did not trap, so the virtual flag "
        + "is \(kernel.cpu.interruptsAreOn ? "still on: the virtual processor is wrong" : "off") now. And "
        + "MOV from CS gave it \(hex(kernel.results[4])), whose low bits say ring "
        + "\(kernel.results[4] & 3). These are the critical instructions of the lab `critical`; "
        + "hypervisors of that time rewrote the kernel's code to get rid of them.")
  }

  private func noteFacts(_ report: inout Report) {
    let work = shadow.work
    report.note("steps", steps)
    report.note("mismatches/shadow", shadow.mismatches)
    report.note("mismatches/own", nested.mismatches)
    report.note("disagreements", shadow.disagreements)
    report.note("flushes", shadow.work.flushes)
    report.note("own_tables", owner)
    report.note("checks", shadow.checks)
    report.note("user_exits/shadow", shadow.userExits)
    report.note("user_exits/own", nested.userExits)
    report.note("kvm_exits/shadow", shadow.kernelExits.map { .number($0) } ?? .text("n/a"))
    report.note("kvm_exits/own", nested.kernelExits.map { .number($0) } ?? .text("n/a"))
    report.note("stores", script.stores)
    report.note("table_writes", work.tableWrites)
    report.note("fills", work.fills)
    report.note("upgrades", work.upgrades)
    report.note("dirtied", work.dirtied)
    report.note("guest_faults", work.guestFaults)
    report.note("model_faults", script.faults)
    report.note("root_loads", work.rootLoads)
    report.note("traps", .list(kernel.traps.map { .text($0.instruction) }))
    report.note("virtual_if", kernel.cpu.interruptsAreOn)
    report.note("virtual_root", hex(kernel.results[1]))
    report.note("cs_ring", Int(kernel.results[4] & 3))
    report.note("output", String(decoding: kernel.cpu.output, as: UTF8.self))
  }

  private func ask(_ report: inout Report) {
    report.ask(
      "table-writes", "How many writes to its tables by the guest came to kvmlite?",
      .number(shadow.work.tableWrites), at: "What the kernel did, and what kvmlite had to do for it"
    )
    report.ask(
      "own-exits", "How many exits came to user space with the kernel's own tables in CR3?",
      .number(nested.userExits), at: "The same kernel, by who makes its tables work")
    report.ask(
      "guest-faults", "How many page faults were the guest's own, and given to its handler?",
      .number(shadow.work.guestFaults), at: "What the kernel did, and what kvmlite had to do for it"
    )
    report.ask(
      "shadow-allows-more", "Did an entry of the shadow ever allow more than the guest's tables?",
      .flag(shadow.disagreements > 0), at: "What it shows")
    report.ask(
      "traps", "How many instructions of the kernel in ring 3 trapped?",
      .number(kernel.traps.count), at: "Its traps")
    report.ask(
      "interrupts-off",
      "The kernel in ring 3 turned interrupts off by POPF at the end. Are they off on its virtual "
        + "processor?",
      .flag(!kernel.cpu.interruptsAreOn), points: 2, at: "A kernel in ring 3")
  }

  private var picture: Picture {
    let work = shadow.work
    let parts: [(name: String, count: Int)] = [
      ("table writes", work.tableWrites), ("entries filled", work.fills),
      ("made writable", work.upgrades),
      ("guest's own faults", work.guestFaults), ("root by port", 2 * work.rootLoads),
    ]
    var picture = Picture(
      "Exits to user space: shadow paging by kvmlite, by reason, and the same kernel with its own "
        + "tables (\(owner)).", width: 860, height: 190)
    picture.label(12, 22, "What shadow paging costs in exits", size: 15)
    let scale = 620 / Double(max(1, shadow.userExits))
    var x = 150.0
    picture.label(12, 66, "kvmlite's shadow")
    for (index, part) in parts.enumerated() {
      let width = Double(part.count) * scale
      picture.rectangle(
        x, 44, width, 34, fill: Picture.colours[index], tip: "\(part.name): \(part.count)")
      x += width
    }
    picture.label(x + 8, 66, "\(shadow.userExits)")
    picture.label(12, 116, "the kernel's own")
    picture.rectangle(150, 94, max(2, Double(nested.userExits) * scale), 34, fill: "#bbb")
    picture.label(160 + Double(nested.userExits) * scale, 116, "\(nested.userExits)")
    for (index, part) in parts.enumerated() {
      let x = 12 + Double(index) * 168
      picture.rectangle(x, 150, 12, 12, fill: Picture.colours[index])
      picture.label(x + 18, 161, "\(part.name) \(part.count)", size: 12)
    }
    return picture
  }
}
