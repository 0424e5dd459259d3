import Host
import Inspect
import KVM
import Machine
import Memory

extension Experiment {
  /// An address on its way from the guest's program to the host's memory.
  static let twoStage = Experiment(
    "two-stage", "an address on its way from the guest to the host's memory",
    "Memory virtualization",
    exercise: Exercise(
      text: "A guest that maps 0x123456789000 to its physical page 0x300000, and halts.",
      check: checkMappingGuest),
    variables: [
      Variable(
        "slot", "the PML4 entry of the page of 4 KiB", 254, 3...255, seeded: Array(5...250))
    ],
    transfer: Transfer(
      id: "entry-address", variable: "slot", values: [33, 77, 99, 131, 187, 201, 222],
      fact: "entry_at/PML4"
    ) {
      "The guest's CR3 is 0x100000. At which guest-physical address is entry \($0) of its PML4 read?"
    }
  ) { report throws(LabError) in
    try TwoStage(report.variation["slot"]).tell(&report)
  }
}

/// The experiment `two-stage`.
private struct TwoStage {
  private var rows: [Row] = []
  /// Whether this KVM gives its guests pages of 1 GiB (CPUID 0x80000001, EDX bit 26).
  private let hasGigabytePages: Bool
  private let machines: TwoMachines

  /// What the guest wrote, and where (guest-asm/lab/two-stage.S).
  private static func targets(
    _ slot: Int
  ) -> [(name: String, address: UInt64, value: UInt64)] {
    let region = UInt64(slot) << 39
    return [
      ("4 KiB", region + 0x1234_5678, 0x111), ("2 MiB", 0x80_0021_2345, 0x222),
      ("1 GiB", 0x100_8055_5000, 0x333), ("nothing", region + 0x1234_6000, 0),
    ]
  }

  /// Where the word of the first target is in the guest's memory, by the guest's source.
  private static let word: UInt64 = 0x34_5678

  private struct Row {
    let name: String
    let walk: PageWalk
    /// What KVM_TRANSLATE said; nil for no mapping.
    let translated: UInt64?
    let location: GuestMemory.Location?
    let frame: PageMap.Page?
    /// Whether the guest's word is where the walk led.
    let isProven: Bool
    /// Why the guest never wrote there; nil if it did.
    let isMapped: Bool

    var physical: UInt64? {
      if case .mapped(let address, _) = walk.result { address.value } else { nil }
    }
  }

  init(_ slot: Int) throws(LabError) {
    var image = try labGuest("two-stage").image
    // Where guest-asm/lab/two-stage.S has it.
    image[8] = UInt8(slot)
    let bench = try Bench(image, ramSize: 16 << 20)
    try bench.runToHalt()
    machines = try TwoMachines(bench, image, at: Self.word)
    let special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
    let leaf = try kvm { () throws(KVMError) in try System().supportedCPUID().entry(0x8000_0001) }
    hasGigabytePages = (leaf?.edx ?? 0) & 1 << 26 != 0
    for target in Self.targets(slot) where target.name != "1 GiB" || hasGigabytePages {
      let walk = PageWalk(target.address, special, bench.memory)
      let translation = try kvm { () throws(KVMError) in
        try bench.vcpu.translate(target.address)
      }
      var location: GuestMemory.Location?
      var word: UInt64?
      if case .mapped(let address, _) = walk.result {
        location = bench.memory.location(of: address)
        word = try bench.words(at: address.value, 1).first
      }
      rows.append(
        Row(
          name: target.name, walk: walk,
          translated: translation.valid != 0 ? translation.physical_address : nil,
          location: location, frame: location.map { PageMap.page(at: $0.hostAddress) },
          isProven: word == target.value && target.value != 0, isMapped: target.value != 0))
    }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "The guest has page tables of its own and wrote words through virtual addresses in pages of "
        + "different sizes. "
        + "From outside, kvmlite follows the addresses: through the guest's tables to a guest-physical "
        + "address (first stage), to the memory slot and the address in kvmlite's own process, and to "
        + "the frame of the host's memory (second stage).")
    report.table(summary)
    for row in rows { report.table(steps(row)) }
    report.heading("What it shows")
    let agree = rows.count { $0.physical == $0.translated }
    report.text(
      "Our walk and KVM_TRANSLATE agree on \(agree) of \(rows.count) addresses. The words that the guest "
        + "wrote were found where the walk led: \(rows.count(where: \.isProven)) of "
        + "\(rows.count(where: \.isMapped)). A larger page ends the walk earlier: "
        + rows.filter(\.isMapped).map { "\($0.walk.steps.count) entries for \($0.name)" }
        .joined(separator: ", ") + ".")
    report.text(
      "Two stages, two sets of tables: the guest's tables hold guest-physical addresses, and a "
        + "processor with nested paging translates each of them once more, the addresses of the tables "
        + "themselves too. Try it on a guest of your own: kvmlite run --walk ADDRESS IMAGE.")
    report.picture(picture(rows[0]))
    tellNestedWalk(&report)
    for row in rows {
      report.note("steps/" + row.name, row.walk.steps.count)
      report.note("physical/" + row.name, row.physical.map { hex($0) } ?? "none")
      report.note("translate/" + row.name, row.translated.map { hex($0) } ?? "none")
      report.note("proven/" + row.name, row.isProven)
      report.note("slot/" + row.name, row.location.map { "\($0.region)" } ?? "none")
    }
    if let first = rows[0].walk.steps.first {
      report.note("entry_at/PML4", Int(clamping: first.address.value))
    }
    report.note("agree", agree)
    report.note("addresses", rows.count)
    ask(&report)
    machines.tell(&report, Self.word)
  }

  private func tellNestedWalk(_ report: inout Report) {
    guard let physical = rows[0].physical else { return }
    let nested = NestedWalk(rows[0].walk, physical: physical)
    report.heading("With nested paging")
    report.text(
      "Each of the guest's entries is at a guest-physical address, and so is the page: \(nested.rows.count) "
        + "addresses, each to be found through the host's \(NestedWalk.hostLevels.count) tables before "
        + "it can be read.")
    report.table(nested.table)
    report.picture(nested.picture)
    report.note("nested_references", nested.count)
    guard let directory = nested.rows.first(where: { $0.name == "PD entry" }) else { return }
    report.note("nested_read/PD entry", directory.read ?? 0)
    report.ask(
      "nested-references",
      "How many references has the nested walk of \(hex(rows[0].walk.linear))?",
      .number(nested.count), at: "The nested walk")
    report.ask(
      "nested-directory", "As which of them is the guest's PD entry read, counted from 1?",
      .number(directory.read ?? 0), points: 2, at: "The nested walk")
  }

  private var summary: Table {
    var table = Table(
      "Four addresses, from the guest's program to the host's memory",
      [
        "page", "virtual", "#entries", "guest-physical", "KVM_TRANSLATE", "slot+offset",
        "host virtual", "host physical",
      ])
    for row in rows {
      table.add([
        row.name, hex(row.walk.linear), "\(row.walk.steps.count)",
        row.physical.map { hex($0) } ?? "fault", row.translated.map { hex($0) } ?? "fault",
        row.location.map { "\($0.region)+\(hex($0.offset))" } ?? "-",
        row.location.map { hex($0.hostAddress) } ?? "-", Self.frame(row),
      ])
    }
    if !hasGigabytePages {
      let missing = [String](repeating: Table.notMeasured, count: table.columns.count - 1)
      table.add(["1 GiB"] + missing)
      table.note(
        "1 GiB is n/a: this KVM gives its guests no such pages (CPUID leaf 0x80000001, EDX bit 26); "
          + "using one is a page fault for a reserved bit.")
    }
    if rows.contains(where: { $0.frame == .hidden || $0.frame == .unknown }) {
      table.note(
        "n/a: /proc/self/pagemap keeps the numbers of frames from processes without CAP_SYS_ADMIN in "
          + "the host's first name space.")
    }
    return table
  }

  private static func frame(_ row: Row) -> String {
    switch row.frame {
    case .frame(let number)?: hex(number << 12 | (row.location?.hostAddress ?? 0) & 0xFFF)
    case .hidden?, .unknown?: Table.notMeasured
    case .absent?: "not touched"
    case .swapped?: "in swap"
    case nil: "-"
    }
  }

  private func steps(_ row: Row) -> Table {
    var table = Table(
      "\(row.name): \(hex(row.walk.linear)), \(row.walk.mode.rawValue), CR3 = \(hex(row.walk.root))",
      ["table", "#index", "entry at", "entry", "bits", "leads to"])
    for step in row.walk.steps {
      let target = step.entry & 0x000F_FFFF_FFFF_F000
      let present = step.entry & 1 != 0
      table.add([
        step.table, "\(step.index)", step.address.description, hex(step.entry, 16), step.flags,
        !present
          ? "nowhere: page fault" : step.isLeaf ? "page \(hex(target))" : "table \(hex(target))",
      ])
    }
    if row.physical != nil {
      let rights = [
        row.walk.isWritable ? "write" : "read only", row.walk.isForUser ? "ring 3" : "ring 0 only",
        row.walk.isExecutable ? "execute" : "no execute",
      ]
      table.note("All entries together allow: " + rights.joined(separator: ", ") + ".")
    }
    return table
  }

  private func ask(_ report: inout Report) {
    for row in rows where row.isMapped {
      report.ask(
        "entries-" + row.name.replacing(" ", with: ""),
        "How many table entries does the walk of an address in a page of \(row.name) read?",
        .number(row.walk.steps.count),
        at: "Four addresses, from the guest's program to the host's memory")
    }
    if let physical = rows[0].physical {
      report.ask(
        "physical", "Which guest-physical address is behind \(hex(rows[0].walk.linear))?",
        .number(Int(physical)), at: "Four addresses, from the guest's program to the host's memory")
      report.ask(
        "index", "Which entry of the PML4 does \(hex(rows[0].walk.linear)) use?",
        .number(rows[0].walk.steps[0].index), at: "4 KiB")
    }
    if let row = rows.first(where: { !$0.isMapped }) {
      report.ask(
        "fault-level", "In which table does the walk of \(hex(row.walk.linear)) end?",
        .words(Self.names(ofTable: row.walk.steps.last?.table)), at: "nothing")
    }
    report.ask(
      "user-page", "May ring 3 use the page of 4 KiB?", .flag(rows[0].walk.isForUser), at: "4 KiB")
  }

  /// What the manual and people call a table.
  private static func names(ofTable table: String?) -> [String] {
    switch table {
    case "PT"?: ["PT", "page table"]
    case "PD"?: ["PD", "page directory"]
    case "PDPT"?: ["PDPT", "page directory pointer table", "page-directory-pointer table"]
    case let table?: [table]
    case nil: ["none"]
    }
  }

  // MARK: The picture

  private func picture(_ row: Row) -> Picture {
    var picture = Picture(
      "The address \(hex(row.walk.linear)): its bits choose the entries; the last entry gives the page.",
      width: 960, height: 330)
    picture.label(12, 22, "From virtual to physical, and on to the host", size: 15)
    let shifts = [39, 30, 21, 12].prefix(row.walk.steps.count)
    for (index, step) in row.walk.steps.enumerated() {
      let x = 20 + Double(index) * 150
      let colour = Picture.colours[index]
      let shift = Array(shifts)[index]
      picture.rectangle(x, 40, 140, 34, fill: "#f3f3f3", stroke: colour)
      picture.label(x + 8, 54, "bits \(shift + 8)-\(shift)", size: 11, fill: "#666")
      picture.label(x + 8, 69, "\(step.index)", isFixed: true)
      picture.arrow(x + 70, 74, x + 70, 104)
      picture.rectangle(x, 106, 140, 64, fill: "#fff", stroke: colour)
      picture.label(x + 8, 122, step.table)
      picture.label(x + 8, 138, "at \(step.address)", size: 11, isFixed: true)
      picture.label(x + 8, 153, hex(step.entry), size: 11, isFixed: true)
      picture.label(x + 8, 166, step.flags, size: 10, fill: "#666")
      if index > 0 { picture.arrow(x - 10, 138, x, 138) }
    }
    let x = 20 + Double(row.walk.steps.count) * 150
    picture.rectangle(x, 40, 140, 34, fill: "#f3f3f3", stroke: "#888")
    picture.label(x + 8, 54, "offset in the page", size: 11, fill: "#666")
    picture.label(x + 8, 69, hex(row.walk.linear & 0xFFF), isFixed: true)
    let boxes: [(title: String, value: String)] = [
      ("guest-physical", row.physical.map { hex($0) } ?? "fault"),
      ("slot + offset", row.location.map { "\($0.region) + \(hex($0.offset))" } ?? "-"),
      ("host virtual (kvmlite)", row.location.map { hex($0.hostAddress) } ?? "-"),
      ("host physical", Self.frame(row)),
    ]
    picture.arrow(x - 80, 170, 100, 218)
    for (index, box) in boxes.enumerated() {
      let x = 20 + Double(index) * 230
      picture.rectangle(x, 220, 210, 54, fill: index == 0 ? "#d9ead3" : "#fff2cc", stroke: "#888")
      picture.label(x + 10, 240, box.title, size: 12, fill: "#666")
      picture.label(x + 10, 260, box.value, isFixed: true)
      if index > 0 { picture.arrow(x - 20, 247, x, 247) }
    }
    picture.legend(
      20, 302,
      [
        ("#d9ead3", "first stage: the guest's tables lead here"),
        ("#fff2cc", "second stage: KVM's slots and the host's tables"),
      ])
    return picture
  }
}

/// Runs a student's guest and walks its tables.
@Sendable private func checkMappingGuest(_ image: [UInt8]) throws(LabError) -> [Grade.Item] {
  let bench = try Bench(image, seconds: 3, what: "the guest")
  let end = try bench.end(by: bench.runStudent())
  let special = try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
  let walk = PageWalk(0x1234_5678_9000, special, bench.memory)
  var seen = "a page fault in the \(walk.steps.last?.table ?? "root")"
  if case .mapped(let address, let size) = walk.result { seen = "\(address) in \(size) bytes" }
  let expected = "0x300000 in 4096 bytes"
  return [
    Grade.Item(
      id: "end", text: "how it ends", expected: "KVM_EXIT_HLT", seen: end,
      isRight: end == "KVM_EXIT_HLT", points: 1, isWork: false),
    Grade.Item(
      id: "mapping", text: "where 0x123456789000 leads", expected: expected, seen: seen,
      isRight: seen == expected, points: 2),
    Grade.Item(
      id: "rights", text: "whether it can be written", expected: "yes",
      seen: walk.isWritable ? "yes" : "no", isRight: walk.isWritable && seen == expected, points: 1),
  ]
}
