extension Experiment {
  /// A disk's front end in a virtual machine, its back end in another process, and what is between them.
  static let split = Experiment(
    withProgram: "split", "the para-virtual split: front end, ring and back end in two processes",
    "I/O virtualization",
    variables: [
      Variable("sectors", "sectors of one request", 1, 1...8, seeded: [2, 3, 4, 5])
    ],
    transfer: Transfer(
      id: "long-read", variable: "sectors", values: [6, 7, 8], fact: "used_length/read"
    ) { "How many bytes does the used ring say for a read of \($0) sectors?" }
  ) { report, program throws(LabError) in
    try Split(SplitRun(program, requestSectors: report.variation["sectors"])).tell(&report)
  }
}

/// The experiment `split`.
struct Split {
  private let run: SplitRun

  /// What the guest had done when it stopped, by step.
  static let titles = [
    "at rest", "the guest describes a read of sector 5", "the guest makes it available",
    "the guest rings the doorbell", "the back end has answered",
    "the guest describes a write to sector 6", "the guest makes it available",
    "the guest rings the doorbell", "the back end has answered",
  ]
  /// Who did it.
  static let actors = [
    "", "domain U", "domain U", "domain U, KVM", "domain 0", "domain U", "domain U",
    "domain U, KVM", "domain 0",
  ]

  init(_ run: SplitRun) throws(LabError) {
    guard run.steps.count == Self.titles.count else {
      throw .unexpected("the guest of split stopped \(run.steps.count) times")
    }
    self.run = run
  }

  // MARK: The report

  func tell(_ report: inout Report) {
    report.text(
      "A para-virtual disk is split in two. The front end is the driver in the guest (domain U): it "
        + "knows that there is no disk, and only writes requests to memory. The back end (domain 0) owns "
        + "the image and is another process, `kvmlite backend block`, as in Xen it is another domain. "
        + "Between them are a ring in shared memory and two events: kick and call.")
    report.table(domains)
    report.text(
      "The guest stops after each thing that it does, and the back end is stopped (SIGSTOP) until its "
        + "turn comes, so everything below stood still when it was read. A first request, not shown, made "
        + "sure that both were there; so the indices begin at 1.")
    report.table(descriptors)
    report.table(ring)
    report.picture(SplitPicture.draw(run))
    tellMeaning(&report)
    note(&report)
    ask(&report)
  }

  private var domains: Table {
    var table = Table(
      "Who has what, by /proc/PID/fd and /proc/PID/maps", ["", "domain U", "domain 0"])
    func yes(_ flag: Bool) -> String { flag ? "yes" : "no" }
    table.add(["process", "\(run.front.process)", "\(run.back.process)"])
    table.add(["a virtual machine of KVM's", yes(run.front.hasVM), yes(run.back.hasVM)])
    table.add(["the disk image open", yes(run.front.hasImage), yes(run.back.hasImage)])
    table.add([
      "the guest's memory (memfd, inode)", memory(run.front), memory(run.back),
    ])
    return table
  }

  private var shared: Set<String> { run.front.sharedMemory.intersection(run.back.sharedMemory) }

  private func memory(_ domain: SplitRun.Domain) -> String {
    let inodes = domain.sharedMemory.intersection(shared).sorted()
    return inodes.isEmpty ? "none in common" : inodes.joined(separator: ", ")
  }

  private var descriptors: Table {
    var table = Table(
      "The descriptor table at step 1, as the guest wrote it",
      ["#", "#address", "#bytes", "flags", "#next", "what it is"])
    let names = [
      "header: read, sector 5", "data: \(run.requestSectors) of 512 bytes", "status: a byte",
    ]
    for (index, descriptor) in run.steps[1].descriptors.prefix(3).enumerated() {
      table.add([
        "\(index)", hex(descriptor.address), "\(descriptor.length)", Self.flags(descriptor.flags),
        descriptor.flags & 1 == 0 ? "" : "\(descriptor.next)", names[index],
      ])
    }
    table.note("WRITE: for the back end to write, as the driver says; NEXT: the chain goes on.")
    return table
  }

  private static func flags(_ flags: UInt16) -> String {
    let names = [(1 as UInt16, "NEXT"), (2, "WRITE")].filter { flags & $0.0 != 0 }.map(\.1)
    return names.isEmpty ? "" : names.joined(separator: " ")
  }

  private var ring: Table {
    var table = Table(
      "The ring and the events, step by step",
      [
        "#", "after", "#avail index", "#used index", "last used (id, bytes)", "#status", "data",
        "#kick", "#call",
      ])
    for (index, step) in run.steps.enumerated() {
      let last = step.usedRing[(step.usedIndex + SplitRun.size - 1) % SplitRun.size]
      table.add([
        "\(index)", Self.titles[index], "\(step.availableIndex)", "\(step.usedIndex)",
        step.usedIndex == 0 ? "" : "\(last.id), \(last.length)", hex(UInt64(step.status)),
        hex(step.data, 16), Self.counter(step.kick), Self.counter(step.call),
      ])
    }
    table.note(
      "status: 0xff is the guest's, 0 the back end's for success. data: the first 8 bytes.")
    table.note(
      "kick, call: the counters of the two eventfds, by /proc/self/fdinfo. The back end watches for the "
        + "kick to be raised and never takes it back; the front end takes its call at each step.")
    return table
  }

  private static func counter(_ value: Int) -> String {
    value < 0 ? Table.notMeasured : "\(value)"
  }

  private func tellMeaning(_ report: inout Report) {
    report.heading("What it shows")
    report.text(
      "Nothing is copied between the two processes: domain 0 maps the same memory, and writes sector 5 "
        + "to where the descriptor says. Only domain 0 has the image. \(handwork)")
    report.text(
      "Each index has one writer: the guest counts up the available ring, the back end the used ring. So "
        + "there is no lock between them, and a request in flight is what the first has and the second "
        + "has not: at step 3 that is \(inFlight(3)).")
    report.text(
      "The doorbell is a write to an address without memory. It came to user space "
        + "\(run.doorbellExits) times for three kicks: KVM raises the event itself (ioeventfd), and the "
        + "guest goes on at once. The call comes back the same way, by an event that KVM would turn "
        + "into an interrupt (irqfd); here the experiment looks at it instead.")
    report.text(
      "The used ring says how many bytes the back end wrote: \(answer(4).length) for the read, the "
        + "sector and the status, and \(answer(8).length) for the write. The back end's own account: "
        + words + ", the first request and its doorbells among them.")
  }

  /// What the back end printed, without whose socket it was.
  private var words: String {
    guard let line = run.words.last, let range = line.ranges(of: ": ring 0: ").first else {
      return "none"
    }
    return String(line[range.upperBound...])
  }

  private var handwork: String {
    guard let read = change(3, 4, \.read), let written = change(7, 8, \.written) else {
      return "What it read by system calls is n/a: /proc/PID/io can't be read."
    }
    return
      "Between steps 3 and 4 it read \(read) bytes by system calls, and between 7 and 8 it wrote "
      + "\(written): the sector, and 8 bytes for its call."
  }

  private func change(_ from: Int, _ to: Int, _ value: (SplitRun.Step) -> Int?) -> Int? {
    guard let before = value(run.steps[from]), let after = value(run.steps[to]) else { return nil }
    return after - before
  }

  private func inFlight(_ step: Int) -> Int {
    run.steps[step].availableIndex - run.steps[step].usedIndex
  }

  /// What the used ring says of the request that was answered before `step`.
  private func answer(_ step: Int) -> (id: Int, length: Int) {
    let step = run.steps[step]
    return step.usedRing[(step.usedIndex + SplitRun.size - 1) % SplitRun.size]
  }

  // MARK: Facts and questions

  private func note(_ report: inout Report) {
    for (key, domain) in [("U", run.front), ("0", run.back)] {
      report.note("vm/" + key, domain.hasVM)
      report.note("image/" + key, domain.hasImage)
    }
    report.note("shares_memory", !shared.isEmpty)
    report.note("doorbell_exits", run.doorbellExits)
    func each(_ value: (SplitRun.Step) -> Int) -> Report.Fact {
      .list(run.steps.map { .number(value($0)) })
    }
    report.note("available_index", each(\.availableIndex))
    report.note("used_index", each(\.usedIndex))
    report.note("kick", each(\.kick))
    report.note("call", each(\.call))
    report.note("status", each(\.status))
    report.note("used_length/read", answer(4).length)
    report.note("used_length/write", answer(8).length)
    report.note("descriptor_flags", .list(run.steps[1].descriptors.map { .number(Int($0.flags)) }))
    report.note(
      "data_is_sector_5", run.steps[4].data == run.before[0] && run.steps[3].data != run.before[0])
    report.note("sector_6_is_sector_5", run.after[1] == run.before[0])
    report.note("sector_6_was_other", run.before[1] != run.before[0])
    report.note(
      "read_by_domain_0", change(3, 4, \.read).map { .number($0) } ?? .text(Table.notMeasured))
    report.note(
      "written_by_domain_0",
      change(7, 8, \.written).map { .number($0) } ?? .text(Table.notMeasured))
    report.note("back_end_says", words)
  }

  private func ask(_ report: inout Report) {
    let image = [(run.front, "domain U"), (run.back, "domain 0")].filter { $0.0.hasImage }
    report.ask(
      "image", "Which domains have the disk image open?", .set(image.map(\.1)), at: "Who has what")
    let machine = [(run.front, "domain U"), (run.back, "domain 0")].filter { $0.0.hasVM }
    report.ask(
      "vm", "Which have a virtual machine of KVM's?", .set(machine.map(\.1)), at: "Who has what")
    report.ask(
      "in-flight", "How many requests are in flight at step 3?", .number(inFlight(3)),
      at: "The ring and the events, step by step")
    report.ask(
      "doorbell-exits", "How many of the three kicks came to user space of domain U?",
      .number(run.doorbellExits), at: "What it shows")
    report.ask(
      "kick-at-2", "What is the kick's counter when the request is available but not yet rung for?",
      .number(run.steps[2].kick), at: "The ring and the events, step by step")
    report.ask(
      "read-length",
      "How many bytes did the back end write into the guest for the read?",
      .number(answer(4).length), points: 2, at: "The ring and the events, step by step")
    report.ask(
      "write-length", "And for the write?", .number(answer(8).length), points: 2,
      at: "The ring and the events, step by step")
    report.ask(
      "writable", "Which descriptors of the read may the back end write to, by their numbers?",
      .set(
        run.steps[1].descriptors.prefix(3).enumerated().filter { $0.element.flags & 2 != 0 }
          .map { "\($0.offset)" }), at: "The descriptor table at step 1")
  }
}
