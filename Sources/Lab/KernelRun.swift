import CKVM
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
    case adapted = "translation, with all that and IN adapted"
    case paraVirtual = "para-virtual"

    var isTranslated: Bool { [.translated, .chained, .hashed, .adapted].contains(self) }
  }

  /// All that the kernel, or its owner, can see of the run.
  struct Outcome: Equatable {
    var words: [UInt64] = []
    var registers: [UInt64] = []
    var output: [UInt8] = []
    var interruptsAreOn = false
    /// The exception that ended it, where the kernel came to something that can't happen in ring 0.
    var crash: String?
  }

  /// The virtual devices' ports, and where a para-virtual kernel calls its hypervisor.
  enum Port {
    static let console: UInt8 = 0xE9
    /// Each reading takes a byte.
    static let queue: UInt8 = 0x95
    /// Reading it changes nothing.
    static let status: UInt8 = 0x96
    /// Writing to it makes the device interrupt.
    static let timer: UInt8 = 0x97
    static let letInterruptsIn: UInt8 = 0x98
    static let interruptReturn: UInt8 = 0x99

    /// Whether an IN may become a load of what it would answer.
    static func isPlain(_ port: UInt8) -> Bool { port == status }
  }

  private(set) var outcome = Outcome()
  /// Returns of KVM_RUN, but those that only tell that ring 0 takes interrupts.
  private(set) var exits = 0
  /// What was translated; nil where nothing was.
  private(set) var cache: TranslationCache?
  private var taken = 0
  private var isPending = false
  private var isHalted = false
  /// Where KVM stopped last, and whether it will yet tell of an HLT, where it does single steps.
  private var stop: UInt64 = 0
  private var isToldLate = false
  private let bench: Bench
  private let way: Way

  /// More exits than any of the kernels has.
  private static let mostExits = 20_000
  /// Kernels are in here, which is read-only where their writes are to be seen.
  static let code = BenchLayout.image..<0x2_0000
  /// The timer's interrupt.
  static let vector = 0x20

  /// Runs the code at `entry` of `image` with `rounds` in R12; `handler` is for the timer's interrupt,
  /// if the kernel doesn't see to that.
  init(
    _ image: [UInt8], entry: UInt64, rounds: Int, handler: UInt64? = nil, _ way: Way
  ) throws(LabError) {
    self.way = way
    bench = try Bench(
      image, what: "the kernel (\(way.rawValue))",
      memory: way.isTranslated ? Self.guardedMemory() : nil)
    try prepare()
    if let handler { try bench.setGate(Self.vector, to: handler) }
    if way.isTranslated {
      cache = TranslationCache(
        bench, chains: way != .translated, hashesReturns: way == .hashed || way == .adapted,
        adaptsInputs: way == .adapted)
    }
    let start = try cache?.place(of: entry) ?? entry
    try bench.start(at: start, way == .ring0 ? .kernel : .user) { $0.r12 = UInt64(rounds) }
    while !isHalted {
      let exit = try bench.run()
      // By these the lab learns that interrupts are on again; a machine's owner has other ways.
      switch exit {
      case .debug, .interruptWindow: break
      default: exits += 1
      }
      guard exits < Self.mostExits else { throw .overdue("the kernel (\(way.rawValue))") }
      try way == .ring0 ? answer(exit) : answerUser(exit)
    }
    try look()
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

  /// Gives the virtual processor the real one's registers, and the devices their first answers.
  private func prepare() throws(LabError) {
    let special = try specialRegisters()
    try store(Translator.Place.interruptFlag, [0, special.cr3])
    try store(
      Translator.Place.pending,
      [
        0, special.cr0, UInt64(special.idt.limit) | special.idt.base << 16, special.idt.base >> 48,
      ])
    try showStatus()
  }

  private func specialRegisters() throws(LabError) -> SpecialRegisters {
    try kvm { () throws(KVMError) in try bench.vcpu.specialRegisters() }
  }

  private func store(_ place: UInt32, _ words: [UInt64]) throws(LabError) {
    try bench.store(words, at: UInt64(place))
  }

  private func virtualFlag() throws(LabError) -> UInt64 {
    try bench.words(at: UInt64(Translator.Place.interruptFlag), 1)[0]
  }

  private mutating func look() throws(LabError) {
    let registers = try bench.registers()
    outcome.words = try bench.words(at: BenchLayout.scratch, 8)
    outcome.registers = [
      registers.rax, registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.r8,
      registers.r9,
    ]
    let flags = try way == .ring0 ? registers.rflags : virtualFlag()
    outcome.interruptsAreOn = flags >> 9 & 1 == 1
  }

  // MARK: The virtual devices

  private mutating func input(_ port: UInt8) -> UInt8 {
    switch port {
    case Port.queue:
      taken += 1
      return UInt8(truncatingIfNeeded: taken &* 7)
    case Port.status: return status
    default: return 0xFF
    }
  }

  private mutating func output(_ port: UInt8, _ value: UInt8) throws(LabError) {
    switch port {
    case Port.console:
      outcome.output.append(value)
      try showStatus()
    case Port.timer: try setPending(true)
    default: break
    }
  }

  /// Ready, and a few bits of how much was printed.
  private var status: UInt8 { 0x20 | UInt8(outcome.output.count & 15) }

  /// Puts the status to where a translation looks for it.
  private func showStatus() throws(LabError) {
    try store(Translator.Place.inputs + UInt32(Port.status) * 8, [UInt64(status)])
  }

  private mutating func setPending(_ isOn: Bool) throws(LabError) {
    isPending = isOn
    try store(Translator.Place.pending, [isOn ? 1 : 0])
  }

  // MARK: Ring 0

  private mutating func answer(_ exit: Exit) throws(LabError) {
    switch exit {
    case .portIO(let io) where io.isWrite:
      try output(
        UInt8(truncatingIfNeeded: io.port), UInt8(truncatingIfNeeded: bench.vcpu.value(of: io, 0)))
      try tryToInterrupt()
    case .portIO(let io):
      let value = input(UInt8(truncatingIfNeeded: io.port))
      bench.vcpu.setValue(UInt64(value), of: io, 0)
    case .interruptWindow: try interrupt()
    case .debug: try stepped()
    case .halt:
      if let exception = try bench.exception() {
        throw .unexpected("the kernel raised \(exception.name) in ring 0")
      }
      if isToldLate { isToldLate = false } else { try halted() }
    case let other: throw .unexpected("the kernel ended in ring 0 by \(other.reason.name)")
    }
  }

  private mutating func halted() throws(LabError) {
    let isOn = try takesInterrupts()
    if isPending && isOn { try interrupt() } else { isHalted = true }
  }

  /// KVM did one instruction. If that was HLT it says so only after the next one.
  private mutating func stepped() throws(LabError) {
    let address = try bench.registers().rip
    let before = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.read(1, at: GuestAddress(stop))
    }
    isToldLate = address == stop + 1 && before == [0xF4]
    stop = address
    try isToldLate ? halted() : tryToInterrupt()
  }

  private func takesInterrupts() throws(LabError) -> Bool {
    let isOn = try bench.registers().rflags >> 9 & 1 == 1
    let events = try kvm { () throws(KVMError) in try bench.vcpu.events() }
    return isOn && events.interrupt.shadow == 0
  }

  /// Lets the runs in ring 0 end as soon as interrupts are let in (or no longer).
  private static func watch(_ bench: Bench, _ isOn: Bool) throws(LabError) {
    guard !tellsOfWindows else { return bench.vcpu.setWantsInterruptWindow(isOn) }
    var debug = kvm_guest_debug()
    if isOn { debug.control = UInt32(KVM_GUESTDBG_ENABLE) | UInt32(KVM_GUESTDBG_SINGLESTEP) }
    try kvm { [debug] () throws(KVMError) in try bench.vcpu.setGuestDebug(debug) }
  }

  /// Whether KVM says when ring 0 takes interrupts again. Where it emulates ring 0 it may not, and single
  /// steps show it.
  private static let tellsOfWindows: Bool = {
    do throws(LabError) {
      // e6 97  out 0x97,al; fb  sti; 90 90  nop; nop; f4  hlt
      let bench = try Bench([0xE6, 0x97, 0xFB, 0x90, 0x90, 0xF4], what: "STI")
      _ = try bench.run()
      bench.vcpu.setWantsInterruptWindow(true)
      guard case .interruptWindow = try bench.run() else { return false }
      return true
    } catch { return true }
  }()

  /// Interrupts if it can be, else waits for when it can.
  private mutating func tryToInterrupt() throws(LabError) {
    guard isPending else { return }
    stop = try bench.registers().rip
    if try takesInterrupts() { try interrupt() } else { try Self.watch(bench, true) }
  }

  private mutating func interrupt() throws(LabError) {
    try setPending(false)
    try Self.watch(bench, false)
    try kvm { () throws(KVMError) in try bench.vcpu.interrupt(vector: UInt32(Self.vector)) }
  }

  // MARK: Ring 3

  private mutating func answerUser(_ exit: Exit) throws(LabError) {
    if case .mmio(let write) = exit, write.isWrite, Self.code.contains(write.address) {
      try cache?.kernelWrote(write)
      return
    }
    guard case .halt = exit, let exception = try bench.exception(), exception.vector == 13 else {
      return try end(by: exit)
    }
    var registers = try bench.registers()
    // The frame: error code, RIP, CS, RFLAGS, RSP.
    let frame = try bench.words(at: registers.rsp, 5)
    (registers.rip, registers.rflags, registers.rsp) = (frame[1], frame[3], frame[4])
    registers.rip =
      try cache == nil ? emulate(&registers) : callOut(&registers)
    if !isHalted { try bench.start(at: registers.rip, .user) { $0 = registers } }
  }

  /// The kernel came to what is no trap: by trap and emulate that is a finding, else a mistake.
  private mutating func end(by exit: Exit) throws(LabError) {
    let exception = try bench.exception()
    guard way == .trapAndEmulate, let exception else {
      throw .unexpected(
        "the kernel in ring 3 ended by \(exit.reason.name) "
          + (exception.map { "\($0.name) at \(hex($0.instructionPointer))" } ?? ""))
    }
    outcome.crash = exception.name
    isHalted = true
  }

  /// Does what trapped; returns where the kernel goes on.
  private mutating func emulate(_ registers: inout Registers) throws(LabError) -> UInt64 {
    let instruction = try Self.instruction(bench, at: registers.rip)
    let next = try perform(instruction, &registers)
    guard !isHalted else { return next }
    // What STI lets in comes after the next instruction, which may be HLT.
    return instruction.kind == .sti ? next : try interrupted(at: next, &registers)
  }

  /// Does what the translation left for; returns where it goes on, in the translation.
  private mutating func callOut(_ registers: inout Registers) throws(LabError) -> UInt64 {
    let site = registers.rip
    guard let callout = cache?.callout(at: site) else {
      throw .unexpected("the translation raised #GP at \(hex(site))")
    }
    let next: UInt64
    switch callout {
    case .instruction(let instruction): next = try perform(instruction, &registers)
    case .goOn(let address, _), .interrupt(let address): next = address
    case .ret:
      next = try bench.words(at: registers.rsp, 1)[0]
      registers.rsp += 8
    }
    guard !isHalted else { return site }
    let target = try interrupted(at: next, &registers)
    guard target == next else { return try cache?.place(of: target) ?? 0 }
    return try cache?.place(after: site, at: next) ?? 0
  }

  /// Where the kernel goes on that would at `next`: in its handler, if an interrupt is to be let in.
  ///
  /// Intel SDM vol 3, "64-Bit Mode Stack Frame": SS, RSP, RFLAGS, CS and RIP on an aligned stack.
  private mutating func interrupted(
    at next: UInt64, _ registers: inout Registers
  ) throws(LabError) -> UInt64 {
    guard isPending, try virtualFlag() != 0 else { return next }
    try setPending(false)
    let stack = (registers.rsp & ~15) - 40
    let flags = registers.rflags & Self.statusFlags | 0x202
    try bench.store([next, 0x08, flags, registers.rsp, 0x10], at: stack)
    registers.rsp = stack
    try store(Translator.Place.interruptFlag, [0])
    let table = try bench.words(at: UInt64(Translator.Place.idt), 2)
    let gate = try bench.words(
      at: (table[0] >> 16 | table[1] << 48) &+ UInt64(Self.vector) * 16, 2)
    return gate[0] & 0xFFFF | (gate[0] >> 48) << 16 | gate[1] << 32
  }

  /// CF, PF, AF, ZF, SF, DF and OF, which are the kernel's own.
  private static let statusFlags: UInt64 = 0xCD5

  /// Does IRETQ.
  private func interruptReturn(_ registers: inout Registers) throws(LabError) -> UInt64 {
    let frame = try bench.words(at: registers.rsp, 5)
    registers.rflags = frame[2] & Self.statusFlags | 2
    registers.rsp = frame[3]
    try store(Translator.Place.interruptFlag, [frame[2] & 0x200])
    return frame[0]
  }

  /// Does a privileged instruction on the virtual processor; returns where the kernel goes on.
  private mutating func perform(
    _ instruction: GuestInstruction, _ registers: inout Registers
  ) throws(LabError) -> UInt64 {
    switch instruction.kind {
    case .cli: try store(Translator.Place.interruptFlag, [0])
    case .sti: try store(Translator.Place.interruptFlag, [0x200])
    case .halt:
      let isOn = try virtualFlag() != 0
      isHalted = !(isPending && isOn)
    case .out(Port.interruptReturn) where way == .paraVirtual:
      return try interruptReturn(&registers)
    case .out(let port): try output(port, UInt8(truncatingIfNeeded: registers.rax))
    case .in(let port): registers.rax = registers.rax & ~0xFF | UInt64(input(port))
    case .interruptReturn: return try interruptReturn(&registers)
    case .readMSR:
      guard registers.rcx & 0xFFFF_FFFF == 0xC000_0080 else {
        throw .unexpected("the lab's virtual processor has EFER alone")
      }
      let value = try specialRegisters().efer
      (registers.rax, registers.rdx) = (value & 0xFFFF_FFFF, value >> 32)
    case .moveFromCR3(let register):
      registers[keyPath: Self.general[Int(register)]] = try bench.words(
        at: UInt64(Translator.Place.root), 1)[0]
    case .moveToCR3(let register):
      // Paging is the lab `shadow`'s.
      guard registers[keyPath: Self.general[Int(register)]] == BenchLayout.pageTables else {
        throw .unexpected("the lab's virtual processor has one root of page tables")
      }
    default: throw .unexpected("the lab does not emulate \(instruction.kind)")
    }
    return instruction.next
  }

  /// The general registers by their numbers in instructions.
  private static var general: [WritableKeyPath<Registers, UInt64>] {
    [
      \.rax, \.rcx, \.rdx, \.rbx, \.rsp, \.rbp, \.rsi, \.rdi, \.r8, \.r9, \.r10, \.r11, \.r12,
      \.r13,
      \.r14, \.r15,
    ]
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
