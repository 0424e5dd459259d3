import Host
import KVM
import Memory

/// One guest-physical address in several machines: whose frame of the host's memory is behind it.
struct TwoMachines {
  /// What one machine has at the address.
  struct View {
    let machine: String
    let word: UInt64
    let hostAddress: UInt64
    let page: PageMap.Page

    var frame: UInt64? { if case .frame(let number) = page { number } else { nil } }
  }

  private enum Code {
    /// 48 8b 03  mov rax,[rbx]; f4  hlt
    static let read: UInt64 = 0xF403_8B48
    /// 48 89 03  mov [rbx],rax; f4  hlt
    static let write: UInt64 = 0xF403_8948
  }

  static let newWord: UInt64 = 0x999
  private static let ramSize: UInt64 = 16 << 20

  /// Two machines that were started each for itself.
  let apart: [View]
  /// Two clones of the first, which have read the word.
  let clones: [View]
  /// The same after the second wrote it.
  let afterWrite: [View]

  /// Looks at `address`, below the end of RAM; `first` has run, and `image` makes another like it.
  init(_ first: Bench, _ image: [UInt8], at address: UInt64) throws(LabError) {
    let second = try Bench(image, ramSize: Self.ramSize)
    try second.runToHalt()
    apart = [
      try Self.view("A", first, address), try Self.view("B, started like A", second, address),
    ]
    let directory = try makeDirectory()
    let path = directory.path + "/memory"
    try Self.save(first, path)
    let pair = [try Self.clone(path), try Self.clone(path)]
    for clone in pair { try Self.run(Code.read, clone, address) }
    clones = try Self.views(pair, address)
    try Self.run(Code.write, pair[1], address) { $0.rax = Self.newWord }
    afterWrite = try Self.views(pair, address)
  }

  private static func save(_ bench: Bench, _ path: String) throws(LabError) {
    let bytes = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.read(Int(ramSize), at: 0)
    }
    try host { () throws(Errno) in
      let file = try OutputFile(path)
      try file.write(bytes)
      try file.commit()
    }
  }

  /// A machine whose memory is a private view of the file at `path`: a page is the file's until it is
  /// written to.
  private static func clone(_ path: String) throws(LabError) -> Bench {
    let mapping = try host { () throws(Errno) in
      try Mapping(
        privateViewOf: FileDescriptor(opening: path, [.readOnly]), count: Int(ramSize))
    }
    guard let memory = GuestMemory(regions: [.init(start: 0, kind: .ram, mapping: mapping)]) else {
      throw .unexpected("a clone's memory could not be made")
    }
    return try Bench([0xF4], memory: memory)
  }

  private static func run(
    _ code: UInt64, _ bench: Bench, _ address: UInt64,
    _ change: (inout Registers) -> Void = { _ in }
  ) throws(LabError) {
    try bench.store([code], at: BenchLayout.scratch)
    try bench.start(at: BenchLayout.scratch, .kernel) { registers in
      registers.rbx = address
      change(&registers)
    }
    try bench.runToHalt()
  }

  private static func views(_ clones: [Bench], _ address: UInt64) throws(LabError) -> [View] {
    [
      try view("clone 1 of A", clones[0], address), try view("clone 2 of A", clones[1], address),
    ]
  }

  private static func view(
    _ name: String, _ bench: Bench, _ address: UInt64
  ) throws(LabError) -> View {
    guard let location = bench.memory.location(of: GuestAddress(address)) else {
      throw .unexpected("\(hex(address)) is outside the guest's memory")
    }
    return View(
      machine: name, word: try bench.words(at: address, 1)[0], hostAddress: location.hostAddress,
      page: PageMap.page(at: location.hostAddress))
  }

  // MARK: The report

  /// Whether both have one frame; nil where the kernel doesn't tell frames.
  private static func share(_ views: [View]) -> Bool? {
    guard let first = views[0].frame, let second = views[1].frame else { return nil }
    return first == second
  }

  func tell(_ report: inout Report, _ address: UInt64) {
    report.heading("One guest-physical address, several machines")
    var table = Table(
      "What is behind guest-physical \(hex(address))",
      ["machine", "when", "word", "host virtual", "host physical"])
    for (when, views) in [
      ("", apart), ("both have read", clones), ("2 has written", afterWrite),
    ] {
      for view in views {
        let frame = view.frame.map { hex($0 << 12 | view.hostAddress & 0xFFF) }
        table.add([
          view.machine, when, hex(view.word), hex(view.hostAddress), frame ?? Table.notMeasured,
        ])
      }
    }
    if Self.share(apart) == nil {
      table.note(
        "n/a: /proc/self/pagemap keeps the numbers of frames from processes without CAP_SYS_ADMIN in "
          + "the host's first name space.")
    }
    report.table(table)
    report.text(
      "The same address means another frame in each machine: that is what the second stage is for. Clones "
        + "begin as views of one saved memory. Until one writes, both have the frame that the host "
        + "keeps of the file; the write takes a copy, for that machine and for that page alone, and "
        + "neither guest can tell.")
    for (key, views) in [("apart", apart), ("clones", clones), ("after_write", afterWrite)] {
      report.note(
        "same_frame/" + key, Self.share(views).map { .flag($0) } ?? .text(Table.notMeasured))
      report.note("words/" + key, .list(views.map { .text(hex($0.word)) }))
    }
    ask(&report)
  }

  private func ask(_ report: inout Report) {
    let place = "What is behind guest-physical"
    for (id, text, views) in [
      ("machines-share", "Do machines A and B have one frame behind the same address?", apart),
      ("clones-share", "Have two clones that only read one frame behind it?", clones),
      ("writers-share", "And after one of them wrote?", afterWrite),
    ] {
      guard let share = Self.share(views) else { continue }
      report.ask(id, text, .flag(share), at: place)
    }
    report.ask(
      "clone-word", "What does the first clone find there after the second wrote?",
      .number(Int(clamping: afterWrite[0].word)), at: place)
  }
}
