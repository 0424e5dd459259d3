extension Experiment {
  /// Several machines on one back end.
  static let multiplex = Experiment(
    withProgram: "multiplex", "several machines on one back end: turns, shares, a liar and a death",
    "I/O virtualization",
    variables: [
      Variable("machines", "machines at once", 4, 2...8, seeded: [3, 4, 5, 6]),
      Variable(
        "greed", "requests that machine 1 offers at once", 16, 4...20, seeded: Array(9...20)),
    ],
    transfer: Transfer(
      id: "more-machines", variable: "machines", values: [7, 8], fact: "last_place/2"
    ) {
      "With \($0) machines, the first as greedy as here: as which of all requests is the last one of "
        + "machine 2 served (1 for the first)?"
    }
  ) { report, program throws(LabError) in
    let variation = report.variation
    let run = try MultiplexRun(
      program, machines: variation["machines"], greed: variation["greed"])
    try Multiplex(run).tell(&report)
  }
}

/// The experiment `multiplex`.
private struct Multiplex {
  private let run: MultiplexRun
  private let rows: [Row]

  /// A machine's share of the first batch.
  private struct Row {
    let result: MultiplexRun.Result
    /// Its requests among those that were served while each machine had some waiting.
    let early: Int
    /// The places of its first and its last request, from 1.
    let first: Int
    let last: Int
    /// The last one's if who came first had been served to the end.
    let lastInLine: Int
  }

  init(_ run: MultiplexRun) throws(LabError) {
    let expected = run.results.reduce(0) { $0 + $1.depth }
    guard run.order.count == expected else {
      throw .unexpected(
        "the back end told the order of \(run.order.count) requests, not of \(expected)")
    }
    self.run = run
    // For so many rounds each has a request waiting.
    let contended = (run.results.map(\.depth).min() ?? 0) * run.results.count
    var before = 0
    var rows: [Row] = []
    for result in run.results {
      before += result.depth
      rows.append(
        Row(
          result: result, early: run.order.prefix(contended).count { $0 == result.number },
          first: (run.order.firstIndex(of: result.number) ?? 0) + 1,
          last: (run.order.lastIndex(of: result.number) ?? 0) + 1, lastInLine: before))
    }
    self.rows = rows
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    let dying = run.dying.map { ", and machine \($0) dies with its requests in the ring" } ?? ""
    report.text(
      "One back end, `kvmlite backend block --machines \(rows.count)`, serves one disk image to "
        + "\(rows.count) machines. Each has a connection, a ring in its own memory, and an overlay of its own "
        + "over the image (`snapshot`). The back end has one thread for the disk, which goes round: from "
        + "each machine that has requests it does one, however many wait.")
    report.text(
      "The machines offer their first batch while the back end stands still (SIGSTOP): machine 1 offers "
        + "\(rows[0].result.depth) writes, each other one \(MultiplexRun.usualDepth), all to the same sectors. In "
        + "the second batch, of reads, machine \(run.liar) lies: a descriptor of its second request points "
        + "to where it has no memory\(dying). The others read once more after that.")
    report.table(shares)
    report.table(orderTable)
    report.picture(picture)
    report.table(fates)
    report.heading("What it shows")
    report.text(
      "While all had requests waiting, each got \(rows[1].early) turns, whoever offered more. The last of "
        + "machine 2's requests was number \(rows[1].last) of \(run.order.count); had machine 1 been served "
        + "to its end first, it would have been number \(rows[1].lastInLine)"
        + (rows[1].last > rows[1].lastInLine
          ? ": among so many, a turn each takes longer than one that is greedy. " : ". ")
        + "When only machine 1 was left, it had all turns: nothing is kept free for who has nothing to do."
    )
    report.text(
      "All wrote to the same sectors, and each reads what it wrote itself: an overlay is one machine's. The "
        + "image below is \(run.isBaseSame ? "byte for byte what it was" : "not what it was").")
    report.text(
      "The liar's first request was answered and no other; the back end said: `\(run.wordsOfLie)`. It "
        + "believes nothing that a machine says without a check, and stops that machine's ring, not "
        + "itself. "
        + (run.dying == nil
          ? "With three machines or more one dies, too. "
          : "The death is the end of a connection: what was in the ring may have been done or not, as "
            + "with a machine whose power is cut. ")
        + "The others had \(wrong == 0 ? "all their data right" : "\(wrong) sectors wrong").")
    note(&report)
    ask(&report)
  }

  private var wrong: Int { rows.reduce(0) { $0 + $1.result.wrong } }

  private var shares: Table {
    var table = Table(
      "The first batch: shares of the disk",
      [
        "#machine", "#offered", "#turns while all wait", "#share then, %", "#its first is number",
        "#its last is number", "#if first come, first served",
      ])
    let early = max(1, rows.reduce(0) { $0 + $1.early })
    for row in rows {
      table.add([
        "\(row.result.number)", "\(row.result.depth)", "\(row.early)",
        decimal(100 * Double(row.early) / Double(early)), "\(row.first)", "\(row.last)",
        "\(row.lastInLine)",
      ])
    }
    table.note(
      "while all wait: the first \(MultiplexRun.usualDepth) rounds, in which each machine has a request left."
    )
    table.note(
      "if first come, first served: computed, each machine to its end after the one before.")
    return table
  }

  private var orderTable: Table {
    var table = Table("Whose request was served, as the back end tells", ["#requests", "=machine"])
    for start in stride(from: 0, to: run.order.count, by: 20) {
      let part = run.order[start..<min(start + 20, run.order.count)]
      table.add([
        part.count == 1 ? "\(start + 1)" : "\(start + 1) to \(start + part.count)",
        part.map { "\($0)" }.joined(separator: " "),
      ])
    }
    return table
  }

  private var fates: Table {
    var table = Table(
      "The second batch, of \(MultiplexRun.usualDepth) reads each, and after it",
      ["#machine", "what it did", "#answered", "read once more", "#wrong sectors"])
    for row in rows {
      let goesOn = row.result.fate == .wentOn
      table.add([
        "\(row.result.number)", row.result.fate.rawValue,
        row.result.fate == .died ? Table.notMeasured : "\(row.result.answered)",
        goesOn ? "yes" : "no", goesOn ? "\(row.result.wrong)" : "",
      ])
    }
    if run.dying != nil {
      table.note("n/a: how far the back end came before it heard of the death is chance.")
    }
    table.note("wrong sectors: of both batches, held against what the machine wrote.")
    return table
  }

  // MARK: Facts and questions

  private func note(_ report: inout Report) {
    report.note("machines", rows.count)
    report.note("order", .list(run.order.map { .number($0) }))
    for row in rows {
      let number = row.result.number
      report.note("offered/\(number)", row.result.depth)
      report.note("early/\(number)", row.early)
      report.note("last_place/\(number)", row.last)
      report.note("fate/\(number)", row.result.fate.rawValue)
      if row.result.fate != .died { report.note("answered/\(number)", row.result.answered) }
      if row.result.fate == .wentOn { report.note("wrong_sectors/\(number)", row.result.wrong) }
    }
    report.note("base_same", run.isBaseSame)
    report.note("back_end_says", run.wordsOfLie)
  }

  private func ask(_ report: inout Report) {
    let place = "The first batch: shares of the disk"
    let count = rows.count
    report.ask(
      "next-after-round", "Whose request was served as number \(count + 2)?",
      .number(run.order[count + 1]), at: "Whose request was served")
    report.ask(
      "last-of-2", "As which of all requests was the last one of machine 2 served?",
      .number(rows[1].last), at: place)
    report.ask(
      "last-in-line", "And if machine 1 had been served to its end before it?",
      .number(rows[1].lastInLine), points: 2, at: place)
    report.ask(
      "greedy-turns", "How many turns had machine 1 while all had requests waiting?",
      .number(rows[0].early), at: place)
    report.ask(
      "liar-answered", "How many requests of the liar's second batch were answered?",
      .number(rows[run.liar - 1].result.answered),
      at: "The second batch, of \(MultiplexRun.usualDepth) reads each, and after it")
    report.ask(
      "went-on", "Which machines went on, all their data right (by number)?",
      .set(
        rows.filter { $0.result.fate == .wentOn && $0.result.wrong == 0 }
          .map { "\($0.result.number)" }),
      at: "The second batch, of \(MultiplexRun.usualDepth) reads each, and after it")
    report.ask(
      "base-same", "Is the image, to whose sectors all wrote, still what it was?",
      .flag(run.isBaseSame), at: "What it shows")
  }

  /// The order of service, a row for each machine.
  private var picture: Picture {
    let left = 110.0
    let cell = min(20.0, 760 / Double(max(1, run.order.count)))
    var picture = Picture(
      "The first batch: each request as it was served, from left to right.",
      width: 900, height: 74 + Double(rows.count) * 30)
    picture.label(12, 22, "Whose turn it was", size: 15)
    picture.legend(
      left + 100, 24, [("#dddddd", "machine 2's last, had machine 1 been served to its end first")])
    for (index, row) in rows.enumerated() {
      let y = 40 + Double(index) * 30
      let number = row.result.number
      picture.label(12, y + 16, "machine \(number)")
      picture.line(left, y + 24, left + Double(run.order.count) * cell, y + 24, stroke: "#ddd")
      if index == 1 {
        picture.rectangle(
          left + Double(row.lastInLine - 1) * cell, y, cell - 2, 22, fill: "#dddddd",
          tip: "first come, first served")
      }
      for (place, machine) in run.order.enumerated() where machine == number {
        picture.rectangle(
          left + Double(place) * cell, y, cell - 2, 22, fill: Picture.colours[index % 8],
          tip: "request \(place + 1)")
      }
    }
    let y = 56 + Double(rows.count) * 30
    for place in stride(from: 0, to: run.order.count, by: 5) {
      picture.label(left + Double(place) * cell, y, "\(place + 1)", size: 11)
    }
    return picture
  }
}
