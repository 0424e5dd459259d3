import Host

extension Experiment {
  /// The same bytes by different devices: how often the guest is left, and what that costs.
  static let ioModels = Experiment(
    withProgram: "io-models", "the same bytes by UART, IDE, virtio and vhost-user",
    "I/O virtualization",
    variables: [
      Variable(
        "command", "sectors of one more command of PIO and of DMA", 100, 65...256,
        seeded: Array(66...255))
    ],
    transfer: Transfer(
      id: "pio-command", variable: "command", values: [70, 75, 90, 110, 130, 150, 170, 210],
      fact: "command_exits/IDE PIO"
    ) { "How many exits to user space does IDE PIO take for one command of \($0) sectors?" }
  ) { report, program throws(LabError) in
    try IOModels(program, command: report.variation["command"]).tell(&report)
  }
}

/// The experiment `io-models`.
struct IOModels {
  static let batches = [1, 2, 4, 8, 16, 32, 64, 128, 256]
  static let runs = 10
  /// Columns of the tables that have room for a few only.
  private static let someBatches = [1, 4, 16, 64, 256]

  private let results: [Result]
  /// One more command each of PIO and DMA, which the tables don't have.
  private let commands: [Cell]
  private let command: Int
  private let hash: UInt64

  /// What one model did at one batch size.
  struct Cell {
    let model: IOModel
    let batch: Int
    let samples: [IOBench.Sample]

    var byteCount: Int { model.byteCount(batch) }
    /// `count` of a transfer for each 4 KiB.
    func per4K(_ count: Int) -> Double { Double(count) * 4096 / Double(byteCount) }
    /// Nanoseconds of a transfer as seconds for 10^9 bytes: the same number for each byte.
    func secondsPerGigabyte(_ nanoseconds: UInt64) -> Double {
      Double(nanoseconds) / Double(byteCount)
    }
    func megabytesPerSecond(_ nanoseconds: UInt64) -> Double {
      Double(byteCount) * 1000 / Double(max(1, nanoseconds))
    }

    private func samples(_ value: (IOBench.Sample) -> Int) -> Samples {
      Samples(samples.map { UInt64(value($0)) })
    }
    var deviceExits: Int { Int(samples(\.deviceExits).median) }
    var waits: Int { Int(samples(\.waits).median) }
    var userExits: Int { deviceExits + waits }
    var isSteady: Bool {
      Set(samples.map(\.deviceExits)).count == 1 && Set(samples.map(\.waits)).count == 1
    }
    var kernelExits: Int? {
      let known = samples.compactMap(\.kernelExits)
      return known.count == samples.count ? Int(Samples(known.map(UInt64.init)).median) : nil
    }
    var processor: Samples { Samples(samples.map(\.processor)) }
    var elapsed: Samples { Samples(samples.map(\.elapsed)) }
  }

  struct Result {
    let model: IOModel
    let cells: [Cell]

    func cell(_ batch: Int) -> Cell? { cells.first { $0.batch == batch } }
  }

  init(_ program: String, command: Int) throws(LabError) {
    self.command = command
    let kit = try Probe.Kit("io-models")
    let directory = try makeDirectory()
    let most = IOModel.allCases.map { $0.byteCount(256) }.max() ?? 0
    var random = RandomNumbers(seed: 1)
    let contents = (0..<most / 8).map { _ in random.next() }
    hash = checksum(contents)
    let image = directory.path + "/disk.raw"
    try host { () throws(Errno) in
      let file = try OutputFile(image)
      try file.write(
        contents.flatMap { word in
          (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64($0 * 8)) }
        })
      try file.commit()
    }
    var results: [Result] = []
    var commands: [Cell] = []
    for model in IOModel.allCases {
      let rig = try IORig(
        model, kit, image: image, contents, program: program, in: directory.path)
      var cells: [Cell] = []
      for batch in Self.batches {
        _ = try rig.transfer(batch: batch)
        var samples: [IOBench.Sample] = []
        for _ in 0..<Self.runs { samples.append(try rig.transfer(batch: batch)) }
        cells.append(Cell(model: model, batch: batch, samples: samples))
      }
      results.append(Result(model: model, cells: cells))
      if model == .pio || model == .dma {
        let sample = try rig.transfer(batch: command)
        commands.append(Cell(model: model, batch: command, samples: [sample]))
      }
    }
    self.results = results
    self.commands = commands
  }

  private func result(_ model: IOModel) -> Result? { results.first { $0.model == model } }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "The same bytes (checksum \(hex(hash, 16))) go through six devices, in batches of 1 to 256. Both "
        + "ends sum up what they sent and got; all sums agreed. The driver runs in ring 3, on the "
        + "processor of every host. It never polls: where it waits for an interrupt it leaves, and "
        + "kvmlite sleeps until the device's line rises, as for a guest that halts.")
    report.table(meaning)
    report.heading("How often the guest is left")
    report.table(userTable)
    report.table(kernelTable)
    report.picture(IOModelPictures.exits(results))
    tellAnatomy(&report)
    if report.times.areShown { tellTimes(&report) }
    tellMeaning(&report)
    note(&report)
    ask(&report)
  }

  private func tellTimes(_ report: inout Report) {
    let mark = report.times.mark
    report.heading("What that costs")
    report.table(
      timeTable("Processor seconds per gigabyte, all threads and processes of the host" + mark) {
        $0.secondsPerGigabyte
      } of: {
        $0.processor
      })
    report.table(
      timeTable("Throughput in MB/s" + mark) {
        $0.megabytesPerSecond
      } of: {
        $0.elapsed
      })
    report.picture(IOModelPictures.throughput(results, mark: mark))
    let spoiled = results.flatMap(\.cells).count { $0.elapsed.isSpoiled }
    if report.times.meanSomething && spoiled > 0 {
      report.text(
        "Spoiled: in \(spoiled) of \(results.count * Self.batches.count) combinations of model and batch "
          + "the ten runs are far apart. Something else ran on this host; compare nothing whose "
          + "ranges overlap, or run again.")
    }
    report.note("spoiled", spoiled)
  }

  private var meaning: Table {
    var table = Table(
      "What is compared", ["model", "a batch is", "#bytes moved", "who does the work"])
    for model in IOModel.allCases {
      let (batch, worker) =
        switch model {
        case .uart: ("bytes of one REP OUTSB", "the VCPU's thread, in the exit")
        case .pio: ("sectors of one READ SECTORS", "the channel's thread; the exits carry the data")
        case .dma: ("sectors of one READ DMA", "the channel's thread, into the guest's memory")
        case .virtio:
          ("requests of a sector a doorbell", "the queue's thread; the VCPU rings for it")
        case .ioeventfd: ("the same", "the queue's thread; KVM rings")
        case .vhostUser: ("the same", "another process; KVM rings")
        }
      table.add([model.rawValue, batch, grouped(model.byteCount(1)), worker])
    }
    table.add(["direct I/O", "", Table.notMeasured, "the device itself"])
    table.note("direct I/O: n/a, comes with VFIO.")
    table.note(
      "The UART sends from the guest, the others read into it. A byte by UART is an exit, so it "
        + "moves fewer; a batch of more than 64 sectors moves one batch. All numbers below are for "
        + "each 4 KiB or gigabyte.")
    return table
  }

  private func countTable(_ caption: String, _ value: (Cell) -> Int?) -> Table {
    var table = Table(caption, ["model"] + Self.batches.map { "#\($0)" })
    for result in results {
      table.add(
        [result.model.rawValue]
          + result.cells.map { cell in
            value(cell).map { count in
              let each = cell.per4K(count)
              return decimal(each, each < 10 ? 2 : each < 100 ? 1 : 0)
            } ?? Table.notMeasured
          })
    }
    table.add(["direct I/O"] + Self.batches.map { _ in Table.notMeasured })
    table.note("direct I/O: n/a, comes with VFIO.")
    return table
  }

  private var userTable: Table {
    var table = countTable("Exits to user space for each 4 KiB, by batch") { $0.userExits }
    let steady = results.allSatisfy { $0.cells.allSatisfy(\.isSteady) }
    table.note(
      steady
        ? "The same in each of \(Self.runs) runs. Sleeping for an interrupt is one of them."
        : "The median of \(Self.runs) runs, which differed. Sleeping for an interrupt is one of them."
    )
    return table
  }

  private var kernelTable: Table {
    var table = countTable("Exits that ended in KVM for each 4 KiB, by batch") { $0.kernelExits }
    if results.contains(where: { $0.cells.contains { $0.kernelExits == nil } }) {
      table.note("n/a: this kernel has no KVM_GET_STATS_FD (Linux 5.14).")
    }
    table.note(
      "The median of \(Self.runs) runs: KVM's counter `exits` less the returns of KVM_RUN. The host's "
        + "own interrupts are in it.")
    return table
  }

  private func timeTable(
    _ caption: String, _ unit: (Cell) -> (UInt64) -> Double, of samples: (Cell) -> Samples
  ) -> Table {
    var table = Table(
      caption + ": median (lowest-highest), by batch",
      ["model"] + Self.someBatches.map { "#\($0)" })
    for result in results {
      table.add(
        [result.model.rawValue]
          + Self.someBatches.map { batch in
            guard let cell = result.cell(batch) else { return Table.notMeasured }
            let convert = unit(cell)
            let sorted = samples(cell).sorted
            let ends = [sorted.first ?? 0, sorted.last ?? 0].map(convert).sorted()
            return short(convert(samples(cell).median)) + " (" + short(ends[0]) + "-"
              + short(ends[1]) + ")"
          })
    }
    table.add(["direct I/O"] + Self.someBatches.map { _ in Table.notMeasured })
    table.note("\(Self.runs) runs each.")
    return table
  }

  private func short(_ value: Double) -> String {
    decimal(value, value < 1 ? 3 : value < 10 ? 2 : value < 100 ? 1 : 0)
  }

  private func tellAnatomy(_ report: inout Report) {
    var table = Table(
      "One sector alone (UART: one byte): returns of KVM_RUN by what they are for",
      ["model", "#doorbell", "#data", "#other registers", "#sleep", "#all"])
    for result in results {
      guard let cell = result.cell(1), let sample = cell.samples.first else { continue }
      let counts = [
        sample.doorbells, sample.dataExits,
        sample.deviceExits - sample.doorbells - sample.dataExits, sample.waits,
        sample.deviceExits + sample.waits,
      ]
      table.add([result.model.rawValue] + counts.map { "\($0 / result.model.pieces(1))" })
    }
    report.table(table)
  }

  private func tellMeaning(_ report: inout Report) {
    report.heading("What it shows")
    let pieces = IOModel.dma.pieces(1)
    if let uart = result(.uart)?.cell(256), let pio = result(.pio)?.cell(256) {
      report.text(
        "String instructions are no remedy by themselves: KVM brings REP OUTSB out "
          + "\(bytesPerExit(uart)) byte at a time, while REP INSW, for which it reads ahead, "
          + "carries \(bytesPerExit(pio)) bytes an exit. But then PIO's data still goes through "
          + "an exit, and each sector has its own interrupt, however long the command.")
    }
    if let pio = result(.pio), let dma = result(.dma), let small = dma.cell(1),
      let one = pio.cell(1),
      let large = dma.cell(256), let all = pio.cell(256)
    {
      report.text(
        "With DMA only the command is exits. For one sector it is \(small.userExits / pieces) of them, "
          + "PIO's \(one.userExits / pieces); for 256 sectors the same \(large.userExits), PIO's "
          + "\(all.userExits). Fixed costs are spread by large commands.")
    }
    if let virtio = result(.virtio)?.cell(1), let quiet = result(.ioeventfd)?.cell(1) {
      report.text(
        "virtio was made for this: a request is written to memory, and what leaves the guest is the "
          + "doorbell, the sleep, and taking the interrupt back: \(virtio.userExits / pieces) for a "
          + "batch of any size. With ioeventfd KVM raises an event itself and goes on, so "
          + "\(quiet.userExits / pieces) remain. Interrupts by message (MSI-X, which kvmlite's PCI "
          + "devices have) and a halt inside KVM take those away, too.")
    }
    report.text(
      "With vhost-user the work is another process's, and the exits are the same: the doorbell's event "
        + "belongs to both. What it adds is one more process that has to wake up.")
  }

  private func bytesPerExit(_ cell: Cell) -> Int {
    cell.byteCount / max(1, cell.samples.first?.dataExits ?? 1)
  }

  // MARK: Facts and questions

  private func note(_ report: inout Report) {
    report.note("same_bytes", true)
    for cell in commands {
      report.note("command_exits/" + cell.model.rawValue, cell.userExits)
    }
    report.note("runs", Self.runs)
    for result in results {
      let name = result.model.rawValue
      for cell in result.cells {
        let key = "\(name)/\(cell.batch)"
        report.note("bytes/" + key, cell.byteCount)
        report.note("device_exits/" + key, cell.deviceExits)
        report.note("sleeps/" + key, cell.waits)
        report.note("doorbell_exits/" + key, cell.samples.first?.doorbells ?? 0)
        report.note("steady/" + key, cell.isSteady)
        report.note(
          "kvm_exits/" + key, cell.kernelExits.map { .number($0) } ?? .text(Table.notMeasured))
        guard report.times.areShown else { continue }
        report.note("processor_ns/" + key, list(cell.processor))
        report.note("elapsed_ns/" + key, list(cell.elapsed))
      }
      if !result.model.isVirtio, result.model != .dma, let cell = result.cell(256) {
        report.note("bytes_per_data_exit/" + name, bytesPerExit(cell))
      }
    }
    report.note("direct I/O", "n/a: comes with VFIO")
  }

  private func list(_ samples: Samples) -> Report.Fact {
    .list(samples.sorted.map { .number(Int(clamping: $0)) })
  }

  private func ask(_ report: inout Report) {
    for (id, model) in [("pio-4k", IOModel.pio), ("dma-4k", .dma)] {
      guard let result = result(model), let cell = result.cell(8) else { continue }
      report.ask(
        id, "How many exits to user space does \(model.rawValue) take for 4 KiB as one command?",
        .number(Int(cell.per4K(cell.userExits).rounded())),
        at: "Exits to user space for each 4 KiB, by batch")
    }
    for (id, model) in [("virtio-batch", IOModel.virtio), ("ioeventfd-batch", .ioeventfd)] {
      guard let result = result(model),
        let cell = result.cells.first(where: { $0.userExits < model.pieces($0.batch) })
      else { continue }
      report.ask(
        id,
        "From which batch of the table on does \(model == .virtio ? "virtio without" : "virtio with")"
          + " ioeventfd take less than one exit to user space for each request of a sector?",
        .number(cell.batch), at: "Exits to user space for each 4 KiB, by batch")
    }
    if let dma = commands.first(where: { $0.model == .dma }) {
      report.ask(
        "dma-command",
        "How many exits to user space does IDE DMA take for one command of \(command) sectors?",
        .number(dma.userExits), at: "Exits to user space for each 4 KiB, by batch")
    }
    let quiet = results.filter {
      $0.model.isVirtio && $0.cells.allSatisfy { $0.samples.allSatisfy { $0.doorbells == 0 } }
    }
    report.ask(
      "no-doorbell",
      "With which of these does no doorbell come to user space? Of: virtio, ioeventfd, vhost-user",
      .set(quiet.map { $0.model == .ioeventfd ? "ioeventfd" : $0.model.rawValue }), points: 2,
      at: "One sector alone")
    for (id, model, words) in [
      ("outsb-bytes", IOModel.uart, "REP OUTSB to the UART"),
      ("insw-bytes", .pio, "PIO's REP INSW"),
    ] {
      guard let cell = result(model)?.cell(256) else { continue }
      report.ask(
        id, "How many bytes does one exit of \(words) carry?", .number(bytesPerExit(cell)),
        at: "Exits to user space for each 4 KiB, by batch")
    }
  }
}
