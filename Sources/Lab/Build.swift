import KVM

extension Experiment {
  /// A hypervisor of the student's own, in four steps.
  static let build = Experiment(
    "build", "a hypervisor of your own: 150 lines of C on /dev/kvm", "CPU virtualization",
    programExercise: ProgramExercise { source, seed throws(LabError) in
      try HypervisorCheck.items(source, seed: seed)
    },
    variables: [
      Variable("length", "bytes that the guests of step 2 move", 12, 2...60, seeded: Array(8...20))
    ],
    transfer: Transfer(
      id: "longer-out", variable: "length", values: [31, 42, 53], fact: "exits/out"
    ) { "How often does KVM_RUN return for the guest `out` if it prints \($0) bytes?" }
  ) { report throws(LabError) in
    try Build(report.variation).tell(&report)
  }
}

/// The experiment `build`: what the guests of the exercise make KVM_RUN return, by kvmlite's own
/// hypervisor for them.
private struct Build {
  private var rows: [Row] = []
  private let length: Int

  private struct Row {
    let task: BuildTask
    let image: [UInt8]
    let outcome: SmallMachine.Outcome
  }

  /// An exit as the picture and the table have it.
  private enum Kind: String, CaseIterable {
    case out = "OUT"
    case `in` = "IN"
    case mmioWrite = "MMIO write"
    case mmioRead = "MMIO read"
    case window = "IRQ window"
    case halt = "HLT"
    case other = "other"

    init(_ exit: Exit) {
      self =
        switch exit {
        case .portIO(let io): io.isWrite ? .out : .in
        case .mmio(let access): access.isWrite ? .mmioWrite : .mmioRead
        case .interruptWindow: .window
        case .halt: .halt
        default: .other
        }
    }

    var colour: String { Picture.colours[Self.allCases.firstIndex(of: self) ?? 0] }
  }

  init(_ variation: Variation) throws(LabError) {
    var random = variation.random(31)
    length = variation["length"]
    for task in BuildTask.allCases {
      let trial = try task.trial(&random, length: length)
      rows.append(
        Row(
          task: task, image: trial.image,
          outcome: try SmallMachine.run(trial.image, input: trial.input)))
    }
  }

  private func exits(_ task: BuildTask) -> [Exit] {
    rows.first { $0.task == task }?.outcome.exits ?? []
  }

  private func count(_ task: BuildTask, _ kind: Kind) -> Int {
    exits(task).count { Kind($0) == kind }
  }

  /// The bytes of the largest exit for port I/O of `task` that reads.
  private var mostInOneRead: Int {
    exits(.string).reduce(0) { most, exit in
      guard case .portIO(let io) = exit, !io.isWrite else { return most }
      return max(most, io.count)
    }
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "KVM is a file, /dev/kvm, and some ioctls. A hypervisor makes a VM, gives it memory and a "
        + "processor, and then does one thing for ever: it has the guest run (KVM_RUN), looks why that "
        + "returned, does what a machine would do there, and has it run again. The exercise is to write "
        + "one: docs/labs/build.md leads through four steps, and --program checks each. Below is what the "
        + "guests of the check make KVM_RUN return, run by a hypervisor of kvmlite's that does no more than "
        + "yours has to.")
    report.table(steps)
    report.table(exitTable)
    report.picture(picture)
    report.heading("What it shows")
    report.text(
      "The guest `memory` wrote and read all over its 640 KiB, and KVM_RUN returned "
        + "\(exits(.memory).count == 1 ? "once, for its HLT" : "\(exits(.memory).count) times"): memory "
        + "is KVM's and the processor's affair once it has been given. An address without memory is the "
        + "hypervisor's: each of the \(count(.mmio, .mmioWrite) + count(.mmio, .mmioRead)) accesses of "
        + "`mmio` returned.")
    report.text(
      "`string` read \(length) bytes by one REP INSB, which returned "
        + (count(.string, .in) == 1 ? "once" : "\(count(.string, .in)) times")
        + ", with a count of \(mostInOneRead) at most: a hypervisor that serves one byte an exit has lost "
        + "the others. The REP OUTSB after it and a line's end returned \(count(.string, .out)) times."
    )
    report.text(
      "`window` raised two interrupts with its interrupt flag off. The hypervisor keeps them, asks by "
        + "`request_interrupt_window`, and KVM_RUN returned \(count(.window, .window)) "
        + "times with KVM_EXIT_IRQ_WINDOW_OPEN, when the guest could take one. Its first HLT is no end, for "
        + "an interrupt waits: so there were \(count(.window, .halt)).")
    note(&report)
    ask(&report)
  }

  private var steps: Table {
    var table = Table(
      "The four steps and their guests", ["#step", "guest", "what the hypervisor does", "#points"])
    for task in BuildTask.allCases {
      table.add(["\(task.step)", task.rawValue, task.text, "\(task.points)"])
    }
    return table
  }

  private var exitTable: Table {
    var table = Table(
      "Why KVM_RUN returned, guest by guest",
      ["guest", "#bytes", "exits, in order", "#exits", "it prints", "AX at the end"])
    for row in rows {
      let ax = UInt64(row.outcome.ax)
      table.add([
        row.task.rawValue, "\(row.image.count)", Self.told(row.outcome.exits),
        "\(row.outcome.exits.count)",
        String(decoding: row.outcome.output, as: UTF8.self).replacing("\n", with: "\\n"),
        hex(ax, 4),
      ])
    }
    if let row = rows.first {
      let bytes = row.image.map { String(hex(UInt64($0), 2).dropFirst(2)) }.joined(separator: " ")
      table.note("The guest `run` is \(bytes): an instruction that changes AX, and HLT.")
    }
    table.note(
      "OUT(5): one exit about 5 accesses. The numbers in the guests are other ones each time.")
    return table
  }

  /// Exits in order, with equal ones that follow each other counted.
  private static func told(_ exits: [Exit]) -> String {
    var parts: [(text: String, count: Int)] = []
    for exit in exits {
      var text = Kind(exit).rawValue
      if case .portIO(let io) = exit, io.count > 1 { text += "(\(io.count))" }
      if case .mmio(let access) = exit { text += " of \(access.width)" }
      if parts.last?.text == text {
        parts[parts.count - 1].count += 1
      } else {
        parts.append((text, 1))
      }
    }
    // Rounds of a loop have several kinds.
    let shown = parts.prefix(7).map { $0.count > 1 ? "\($0.count) x \($0.text)" : $0.text }
    return shown.joined(separator: ", ") + (parts.count > 7 ? ", ..." : "")
  }

  private func note(_ report: inout Report) {
    for row in rows {
      report.note("exits/" + row.task.rawValue, row.outcome.exits.count)
      report.note("ax/" + row.task.rawValue, hex(UInt64(row.outcome.ax), 4))
      report.note(
        "prints/" + row.task.rawValue, String(decoding: row.outcome.output, as: UTF8.self))
    }
    report.note("most_in_one_read", mostInOneRead)
    report.note("windows", count(.window, .window))
    report.note("halts/window", count(.window, .halt))
    report.note("mmio_widths", .list(mmioWidths.map { .number($0) }))
  }

  private var mmioWidths: [Int] {
    let widths = exits(.mmio).compactMap { exit -> Int? in
      if case .mmio(let access) = exit { access.width } else { nil }
    }
    return Set(widths).sorted()
  }

  private func ask(_ report: inout Report) {
    let place = "Why KVM_RUN returned, guest by guest"
    report.ask(
      "exits-out", "How often does KVM_RUN return for the guest out?",
      .number(exits(.out).count), at: place)
    report.ask(
      "exits-memory", "And for memory, which writes and reads all over its RAM?",
      .number(exits(.memory).count), at: place)
    report.ask(
      "read-count", "How many accesses is the largest IN of string about?",
      .number(mostInOneRead), points: 2, at: "What it shows")
    report.ask(
      "mmio-widths", "Of how many bytes are the accesses of mmio? Each width once.",
      .set(mmioWidths.map { "\($0)" }), at: place)
    report.ask(
      "windows", "How often does KVM_RUN return because window can take an interrupt?",
      .number(count(.window, .window)), points: 2, at: "What it shows")
    report.ask(
      "halts", "How many exits for HLT does window make?", .number(count(.window, .halt)),
      at: "What it shows")
  }

  /// Each guest as a row of its exits.
  private var picture: Picture {
    let (left, cell) = (110.0, 11.0)
    let most = min(60, rows.map(\.outcome.exits.count).max() ?? 1)
    var picture = Picture(
      "Each guest's exits in order, from left to right.",
      width: max(760, left + Double(most) * cell + 40), height: 76 + Double(rows.count) * 30)
    picture.label(12, 22, "Why KVM_RUN returned", size: 15)
    picture.legend(12, 46, Kind.allCases.dropLast().map { ($0.colour, $0.rawValue) })
    for (index, row) in rows.enumerated() {
      let y = 62 + Double(index) * 30
      picture.label(12, y + 15, "\(row.task.step)  \(row.task.rawValue)")
      for (place, exit) in row.outcome.exits.prefix(most).enumerated() {
        let kind = Kind(exit)
        picture.rectangle(
          left + Double(place) * cell, y, cell - 2, 20, fill: kind.colour, tip: kind.rawValue)
      }
      if row.outcome.exits.count > most {
        picture.label(left + Double(most) * cell + 4, y + 15, "...")
      }
    }
    return picture
  }
}
