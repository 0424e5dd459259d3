import Host
import KVM
import Memory

/// A kernel of the experiment `translation`, run in one of the ways there are.
struct KernelRun {
  /// How it runs.
  enum Way: String, CaseIterable {
    case ring0 = "ring 0"
    case trapAndEmulate = "trap and emulate"
    case translated = "translation"
    case chained = "translation, chained"
    case hashed = "translation, chained, returns hashed"
    case paraVirtual = "para-virtual"

    var isTranslated: Bool { [.translated, .chained, .hashed].contains(self) }
  }

  /// All that the kernel, or its owner, can see of the run.
  struct Outcome: Equatable {
    var words: [UInt64] = []
    var registers: [UInt64] = []
    var output: [UInt8] = []
    var interruptsAreOn = false
  }

  private(set) var outcome = Outcome()
  /// Returns of KVM_RUN.
  private(set) var exits = 0
  /// What was translated; nil where nothing was.
  private(set) var cache: TranslationCache?
  private var polls = 0
  private var isHalted = false
  private let bench: Bench

  /// More exits than any of the kernels has.
  private static let mostExits = 20_000
  /// Kernels are in here, which is read-only where their writes are to be seen.
  static let code = BenchLayout.image..<0x2_0000

  /// Runs the code at `entry` of `image` with `rounds` in R12.
  init(_ image: [UInt8], entry: UInt64, rounds: Int, _ way: Way) throws(LabError) {
    bench = try Bench(
      image, what: "the kernel (\(way.rawValue))",
      memory: way.isTranslated ? Self.guardedMemory() : nil)
    try bench.store([0, 0x99000], at: UInt64(Translator.Place.interruptFlag))
    var registers = Registers()
    registers.r12 = UInt64(rounds)
    if way.isTranslated {
      cache = TranslationCache(bench, chains: way != .translated, hashesReturns: way == .hashed)
    }
    let start = try cache?.place(of: entry) ?? entry
    try bench.start(at: start, way == .ring0 ? .kernel : .user) { $0.r12 = UInt64(rounds) }
    while !isHalted {
      let exit = try bench.run()
      exits += 1
      guard exits < Self.mostExits else { throw .overdue("the kernel (\(way.rawValue))") }
      try way == .ring0 ? answer(exit) : answerUser(exit)
    }
    try look(isRing0: way == .ring0)
  }

  /// Memory in which writes to the kernel's code leave.
  private static func guardedMemory() throws(LabError) -> GuestMemory {
    let ends: [(start: UInt64, end: UInt64, kind: GuestMemory.Region.Kind)] = [
      (0, code.lowerBound, .ram), (code.lowerBound, code.upperBound, .rom),
      (code.upperBound, 8 << 20, .ram),
    ]
    var regions: [GuestMemory.Region] = []
    for part in ends {
      let mapping = try host { () throws(Errno) in
        try Mapping(anonymous: Int(part.end - part.start))
      }
      regions.append(.init(start: GuestAddress(part.start), kind: part.kind, mapping: mapping))
    }
    guard let memory = GuestMemory(regions: regions) else {
      throw .unexpected("the kernel's memory could not be made")
    }
    return memory
  }

  private mutating func look(isRing0: Bool) throws(LabError) {
    let registers = try bench.registers()
    outcome.words = try bench.words(at: BenchLayout.scratch, 8)
    outcome.registers = [
      registers.rax, registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.r8,
      registers.r9,
    ]
    let flag = try bench.words(at: UInt64(Translator.Place.interruptFlag), 1)[0]
    outcome.interruptsAreOn = (isRing0 ? registers.rflags : flag) >> 9 & 1 == 1
  }

  // MARK: The virtual devices

  private mutating func input(_ port: UInt8) -> UInt8 {
    guard port == 0x95 else { return 0xFF }
    polls += 1
    return polls % 5 == 0 ? 1 : 0
  }

  private mutating func output(_ port: UInt8, _ value: UInt8) {
    if port == 0xE9 { outcome.output.append(value) }
  }

  // MARK: Ring 0

  private mutating func answer(_ exit: Exit) throws(LabError) {
    switch exit {
    case .portIO(let io) where io.isWrite:
      output(
        UInt8(truncatingIfNeeded: io.port), UInt8(truncatingIfNeeded: bench.vcpu.value(of: io, 0)))
    case .portIO(let io):
      let value = input(UInt8(truncatingIfNeeded: io.port))
      bench.vcpu.setValue(UInt64(value), of: io, 0)
    case .halt:
      if let exception = try bench.exception() {
        throw .unexpected("the kernel raised \(exception.name) in ring 0")
      }
      isHalted = true
    case let other: throw .unexpected("the kernel ended in ring 0 by \(other.reason.name)")
    }
  }

  // MARK: Ring 3

  private mutating func answerUser(_ exit: Exit) throws(LabError) {
    if case .mmio(let write) = exit, write.isWrite, Self.code.contains(write.address) {
      try cache?.kernelWrote(write)
      return
    }
    guard case .halt = exit, let exception = try bench.exception(), exception.vector == 13 else {
      throw .unexpected(
        "the kernel in ring 3 ended by \(exit.reason.name) "
          + (try bench.exception().map { "\($0.name) at \(hex($0.instructionPointer))" } ?? ""))
    }
    var registers = try bench.registers()
    // The frame: error code, RIP, CS, RFLAGS, RSP.
    let frame = try bench.words(at: registers.rsp, 5)
    (registers.rip, registers.rflags, registers.rsp) = (frame[1], frame[3], frame[4])
    if let callout = cache?.callout(at: registers.rip) {
      switch callout {
      case .instruction(let kind):
        try perform(kind, &registers)
        registers.rip += 1
      case .goOn(let address): registers.rip = try cache?.goOn(registers.rip, at: address) ?? 0
      case .ret:
        let address = try bench.words(at: registers.rsp, 1)[0]
        registers.rsp += 8
        registers.rip = try cache?.goBack(registers.rip, to: address) ?? 0
      }
    } else {
      let instruction = try Self.instruction(bench, at: registers.rip)
      try perform(instruction.kind, &registers)
      registers.rip = instruction.next
    }
    if !isHalted { try bench.start(at: registers.rip, .user) { $0 = registers } }
  }

  /// Does a privileged instruction on the virtual processor.
  private mutating func perform(
    _ kind: GuestInstruction.Kind, _ registers: inout Registers
  ) throws(LabError) {
    switch kind {
    case .cli: try bench.store([0], at: UInt64(Translator.Place.interruptFlag))
    case .sti: try bench.store([0x200], at: UInt64(Translator.Place.interruptFlag))
    case .halt: isHalted = true
    case .out(let port): output(port, UInt8(truncatingIfNeeded: registers.rax))
    case .in(let port): registers.rax = registers.rax & ~0xFF | UInt64(input(port))
    default: throw .unexpected("the lab does not emulate \(kind)")
    }
  }

  /// The instruction of the guest's at `address`.
  static func instruction(
    _ bench: Bench, at address: UInt64
  ) throws(LabError) -> GuestInstruction {
    let code = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.read(15, at: GuestAddress(address))
    }
    do { return try GuestInstruction(code, at: address) } catch { throw .unexpected("\(error)") }
  }
}

/// The translated units of one kernel, and how they lead to each other.
struct TranslationCache {
  /// A way from one unit to another.
  struct Edge: Hashable {
    let from: UInt64
    let to: UInt64
  }

  /// All units that were made, in that order, those that were dropped too.
  private(set) var units: [Translator.Unit] = []
  /// Ways that were gone, and whether the jump is in place of the callout now.
  private(set) var edges: [Edge: Bool] = [:]
  /// How often the kernel changed its code, and all was dropped.
  private(set) var drops = 0
  private let bench: Bench
  private let chains: Bool
  private let translator: Translator
  private var places: [UInt64: UInt64] = [:]
  private var callouts: [UInt64: Translator.Callout] = [:]
  private var patched: Set<UInt64> = []
  private var free = Translator.Place.cache

  init(_ bench: Bench, chains: Bool, hashesReturns: Bool) {
    self.bench = bench
    self.chains = chains
    translator = Translator(hashesReturns: hashesReturns)
  }

  var byteCount: Int { units.reduce(0) { $0 + $1.code.count } }

  func callout(at place: UInt64) -> Translator.Callout? { callouts[place] }

  /// Where the translation of the code at `address` is; makes it if there is none.
  mutating func place(of address: UInt64) throws(LabError) -> UInt64 {
    if let place = places[address] { return place }
    let bench = bench
    let unit = try translator.unit(at: address, place: free) { address throws(LabError) in
      try KernelRun.instruction(bench, at: address)
    }
    let code = unit.code
    guard free + UInt64(code.count) + 16 <= Translator.Place.cacheEnd else {
      throw .unexpected("the translations have no room")
    }
    try write(code, at: free)
    for callout in unit.callouts { callouts[callout.place] = callout.callout }
    places[address] = free
    units.append(unit)
    free = (free + UInt64(code.count) + 15) & ~15
    return unit.place
  }

  private func write(_ code: [UInt8], at place: UInt64) throws(LabError) {
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.write(code.span, at: GuestAddress(place))
    }
  }

  /// The callout at `site` goes on at `address`: from now on by a jump, if units are chained.
  mutating func goOn(_ site: UInt64, at address: UInt64) throws(LabError) -> UInt64 {
    let target = try place(of: address)
    note(site, address, isJump: chains)
    if chains {
      try write(Translator.jump(from: site, to: target), at: site)
      patched.insert(site)
    }
    return target
  }

  private mutating func note(_ site: UInt64, _ address: UInt64, isJump: Bool) {
    guard let unit = units.last(where: { $0.place <= site }) else { return }
    edges[Edge(from: unit.start, to: address)] = isJump
  }

  /// The guest returns to `address`, by the callout at `site`: the table knows next time.
  mutating func goBack(_ site: UInt64, to address: UInt64) throws(LabError) -> UInt64 {
    let target = try place(of: address)
    note(site, address, isJump: translator.hashesReturns)
    guard translator.hashesReturns else { return target }
    let entry = (address & 0xFF) * 8
    try bench.store([address], at: UInt64(Translator.Place.returns) + entry)
    try bench.store([target], at: UInt64(Translator.Place.translatedReturns) + entry)
    return target
  }

  /// The kernel wrote to where its code is: does that, and drops what was translated of it. What runs
  /// just now stays until it leaves, so its places aren't used again.
  mutating func kernelWrote(_ access: Exit.MMIO) throws(LabError) {
    try write(
      (0..<access.width).map { UInt8(truncatingIfNeeded: access.data >> UInt64($0 * 8)) },
      at: access.address)
    let end = access.address + UInt64(access.width)
    let isTranslated = units.contains {
      places[$0.start] == $0.place && $0.start < end && access.address < $0.end
    }
    guard isTranslated else { return }
    drops += 1
    places = [:]
    for site in patched { try write(Translator.stub, at: site) }
    patched = []
    try bench.store([UInt64](repeating: 0, count: 256), at: UInt64(Translator.Place.returns))
  }
}
