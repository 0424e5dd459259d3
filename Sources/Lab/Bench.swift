import Host
import KVM
import Memory

/// A small virtual machine for one experiment: RAM, one VCPU in long mode with tables of its own, and
/// a guest's image. No devices, no interrupt controllers: every exit is the experiment's to see.
final class Bench {
  let vm: VM
  let vcpu: VCPU
  let memory: GuestMemory
  private let alarm: Alarm
  private let what: String

  /// Which ring code starts in.
  enum Ring: Int, Sendable, CaseIterable { case kernel = 0, one, two, user }

  /// Bits of control registers that experiments ask for (Intel SDM vol 3, "Control Registers").
  enum Control {
    static let umip: UInt64 = 1 << 11
    static let physicalAddressExtension: UInt64 = 1 << 5
    static let pagingAndProtection: UInt64 = 1 << 31 | 1
    static let writeProtect: UInt64 = 1 << 16
    static let timeStampDisable: UInt64 = 1 << 2
    /// CD and NW, which are set after a reset and which every kernel clears.
    static let noCaches: UInt64 = 1 << 30 | 1 << 29
    static let longMode: UInt64 = 1 << 8 | 1 << 10
  }

  /// Bits of the guest's own control registers that are set besides the usual ones.
  struct Settings: Sendable {
    var cr0: UInt64 = 0
    var cr4: UInt64 = 0
    /// The privilege level for I/O in RFLAGS, which is the kernel's to set.
    var ioPrivilege = 0
  }

  /// Makes it with `image` at `BenchLayout.image`; after `seconds` of processor time its guest is told
  /// to leave.
  ///
  /// Its runs are all on the calling thread, which ends with `close()`.
  init(
    _ image: [UInt8], ramSize: UInt64 = 8 << 20, settings: Settings = Settings(), seconds: Int = 20,
    what: String = "the guest", roms: [(start: GuestAddress, contents: [UInt8])] = [],
    isShareable: Bool = false, memory: GuestMemory? = nil,
    prepare: (VM, GuestMemory) throws(LabError) -> Void = Bench.allSlots
  ) throws(LabError) {
    let system = try kvm { () throws(KVMError) in try System() }
    vm = try kvm { () throws(KVMError) in try system.makeVM() }
    let made: GuestMemory
    if let memory {
      made = memory
    } else {
      made = try host { () throws(Errno) in
        try GuestMemory(ramSize: ramSize, roms: roms, isShareable: isShareable)
      }
    }
    self.memory = made
    let (vm, memory) = (vm, made)
    try kvm { () throws(KVMError) in
      try vm.setIdentityMapAddress(0xFEFF_C000)
      try vm.setTSSAddress(0xFEFF_D000)
    }
    try prepare(vm, memory)
    let vcpu = try kvm { () throws(KVMError) in
      let vcpu = try vm.makeVCPU(id: 0)
      try vcpu.setCPUID(system.supportedCPUID())
      return vcpu
    }
    self.vcpu = vcpu
    self.what = what
    alarm = try host { () throws(Errno) in try Alarm(seconds: seconds) { vcpu.requestExit() } }
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      try memory.write(image.span, at: GuestAddress(BenchLayout.image))
      try Self.writeTables(memory)
    }
    try enterLongMode(settings)
  }

  deinit { alarm.cancel() }

  /// Gives the VM each region of memory as a slot.
  static func allSlots(_ vm: VM, _ memory: GuestMemory) throws(LabError) {
    try kvm { () throws(KVMError) in
      for (slot, region) in memory.regions.enumerated() {
        try vm.setMemory(slot: UInt32(slot), region)
      }
    }
  }

  // MARK: Tables

  private static func writeTables(_ memory: GuestMemory) throws(GuestMemory.OutOfBounds) {
    let open: UInt64 = 7  // present, writable, for ring 3
    let tables = try memory.view(at: GuestAddress(BenchLayout.pageTables), count: 0x3000)
    tables.store((BenchLayout.pageTables + 0x1000) | open, 0)
    tables.store((BenchLayout.pageTables + 0x2000) | open, 0x1000)
    for index in 0..<512 { tables.store(UInt64(index) << 21 | 0x80 | open, 0x2000 + index * 8) }
    let task = BenchLayout.taskState
    let descriptors: [UInt64] =
      [
        0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
      ] + taskDescriptor(task, limit: 103)
    let table = try memory.view(at: GuestAddress(BenchLayout.descriptorTable), count: 0x100)
    for (index, descriptor) in descriptors.enumerated() { table.store(descriptor, index * 8) }
    let state = try memory.view(at: GuestAddress(task), count: 104)
    state.store(BenchLayout.exceptionStack, 4)  // RSP0
    state.store(UInt16(104), 102)  // no map of ports: it would begin behind the end
    let gates = try memory.view(at: GuestAddress(BenchLayout.interruptTable), count: 4096)
    let stubs = try memory.view(at: GuestAddress(BenchLayout.stubs), count: 4096)
    for vector in 0..<256 {
      let stub = BenchLayout.stubs + UInt64(vector) * BenchLayout.stubSize
      for (index, word) in gate(to: stub).enumerated() {
        gates.store(word, vector * 16 + index * 8)
      }
      stubs.store(UInt8(0xF4), vector * Int(BenchLayout.stubSize))  // HLT
    }
  }

  /// A 64-bit interrupt gate to selector 8 that INT may use in ring 0 alone (Intel SDM vol 3, "64-Bit
  /// Mode IDT").
  private static func gate(to handler: UInt64) -> [UInt64] {
    [
      (handler & 0xFFFF) | 0x08 << 16 | 0x8E << 40 | (handler >> 16 & 0xFFFF) << 48, handler >> 32,
    ]
  }

  /// Lets the guest handle `vector` at `handler` instead of leaving.
  func setGate(_ vector: Int, to handler: UInt64) throws(LabError) {
    try store(Self.gate(to: handler), at: BenchLayout.interruptTable + UInt64(vector) * 16)
  }

  /// Goes to ring 3 with all ports open to it: the TSS moves to `address`, where three pages of zeroes
  /// are, with a map of ports that forbids none (Intel SDM vol 1, "I/O Permission Bit Map"). `startUser` is for what
  /// follows.
  ///
  /// The guest loads the TSS itself, and nobody sets segments afterwards: KVM says of a loaded TSS that
  /// it is busy, and QEMU's AMD-V takes a busy one for none.
  func enterUserWithPorts(taskStateAt address: UInt64) throws(LabError) {
    let mapSize: UInt64 = 65536 / 8
    try inMemory { () throws(GuestMemory.OutOfBounds) in
      let state = try memory.view(at: GuestAddress(address), count: 104 + mapSize + 1)
      state.store(BenchLayout.exceptionStack, 4)
      state.store(UInt16(104), 102)
      // The processor reads two bytes at a time.
      state.store(UInt8(0xFF), 104 + Int(mapSize))
    }
    try store(
      Self.taskDescriptor(address, limit: 104 + mapSize),
      at: BenchLayout.descriptorTable + UInt64(BenchLayout.taskSelector))
    // 0f 00 d8  ltr ax; 48 cf  iretq; e6 80  out 0x80,al
    try store([0x0080_E6CF_48D8_000F], at: BenchLayout.scratch)
    let frame = BenchLayout.stack - 40
    // RIP of the OUT, CS, RFLAGS, RSP and SS.
    try store([BenchLayout.scratch + 5, 0x23, 2, BenchLayout.stack, 0x1B], at: frame)
    try start(at: BenchLayout.scratch, .kernel) { registers in
      (registers.rax, registers.rsp) = (UInt64(BenchLayout.taskSelector), frame)
    }
    guard case .portIO = try run() else {
      throw .unexpected("\(what) could not be given ports in ring 3")
    }
  }

  /// Sets the VCPU, which is in ring 3, to `address`, as `start` does.
  func startUser(
    at address: UInt64, _ change: (inout Registers) -> Void = { _ in }
  ) throws(LabError) {
    try kvm { () throws(KVMError) in try setRegisters(address, change) }
  }

  /// An available 64-bit TSS (Intel SDM vol 3, "TSS Descriptor in 64-bit Mode").
  private static func taskDescriptor(_ address: UInt64, limit: UInt64) -> [UInt64] {
    [
      limit | (address & 0xFF_FFFF) << 16 | 0x89 << 40 | (address >> 24 & 0xFF) << 56,
      address >> 32,
    ]
  }

  private func enterLongMode(_ settings: Settings) throws(LabError) {
    try kvm { () throws(KVMError) in
      var special = try vcpu.specialRegisters()
      special.cr3 = BenchLayout.pageTables
      special.cr4 |= Control.physicalAddressExtension | settings.cr4
      // As a kernel has it: with caches off KVM watches CR0 on AMD-V.
      special.cr0 &= ~Control.noCaches
      special.cr0 |= Control.pagingAndProtection | Control.writeProtect | settings.cr0
      special.efer |= Control.longMode
      special.gdt.base = BenchLayout.descriptorTable
      special.gdt.limit = 7 * 8 - 1
      special.idt.base = BenchLayout.interruptTable
      special.idt.limit = 4095
      special.tr.base = BenchLayout.taskState
      special.tr.limit = 103
      special.tr.selector = BenchLayout.taskSelector
      (special.tr.type, special.tr.s, special.tr.present) = (11, 0, 1)
      try vcpu.setSpecialRegisters(special)
    }
    try start(at: BenchLayout.image, .kernel)
  }

  // MARK: Running

  /// Sets the VCPU to `address` in `ring` with an empty stack, interrupts off and other registers
  /// as `change` sets them.
  func start(
    at address: UInt64, _ ring: Ring, _ change: (inout Registers) -> Void = { _ in }
  ) throws(LabError) {
    try kvm { () throws(KVMError) in
      var special = try vcpu.specialRegisters()
      let level = UInt16(ring.rawValue)
      special.cs = Self.segment(ring == .kernel ? 0x08 : 0x20 | level, isCode: true, ring)
      let data = Self.segment(ring == .kernel ? 0x10 : 0x18 | level, isCode: false, ring)
      (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data)
      try vcpu.setSpecialRegisters(special)
      try setRegisters(address, change)
    }
  }

  private func setRegisters(
    _ address: UInt64, _ change: (inout Registers) -> Void
  ) throws(KVMError) {
    var registers = Registers()
    registers.rip = address
    registers.rsp = BenchLayout.stack
    registers.rflags = 2
    registers.rdi = BenchLayout.scratch
    change(&registers)
    try vcpu.setRegisters(registers)
  }

  private static func segment(_ selector: UInt16, isCode: Bool, _ ring: Ring) -> Segment {
    var segment = Segment()
    segment.limit = 0xFFFF_FFFF
    segment.selector = selector
    segment.type = isCode ? 11 : 3
    (segment.present, segment.s, segment.g) = (1, 1, 1)
    segment.dpl = UInt8(ring.rawValue)
    (segment.l, segment.db) = isCode ? (1, 0) : (0, 1)
    return segment
  }

  /// Runs to the next exit that isn't a mere interruption.
  func run() throws(LabError) -> Exit {
    while true {
      let exit = try kvm { () throws(KVMError) in try vcpu.run() }
      guard case .interrupted = exit else { return exit }
      if alarm.isOver { throw .overdue(what) }
    }
  }

  /// After `.halt`: the exception whose stub it was in; nil if the guest halted by itself.
  func exception() throws(LabError) -> GuestException? {
    let registers = try registers()
    let offset = registers.rip &- BenchLayout.stubs &- 1
    guard offset < 4096, offset % BenchLayout.stubSize == 0 else { return nil }
    let vector = UInt8(offset / BenchLayout.stubSize)
    let hasError = BenchLayout.hasErrorCode(vector)
    // A guest's stack may be anywhere; where no memory is, there is no frame.
    let frame = (try? words(at: registers.rsp, 2)) ?? [0, 0]
    return GuestException(
      vector: vector, error: hasError ? frame[0] : 0,
      instructionPointer: hasError ? frame[1] : frame[0])
  }

  /// Runs to the guest's own HLT; throws what else happened, in words.
  func runToHalt() throws(LabError) {
    let exit = try run()
    let place = try hex(registers().rip)
    guard case .halt = exit else {
      throw .unexpected("\(what) ended at \(place) by \(exit.reason.name)")
    }
    if let exception = try exception() {
      throw .unexpected(
        "\(what) raised \(exception.name) (\(hex(exception.error))) at "
          + hex(exception.instructionPointer))
    }
  }

  /// The general registers now.
  func registers() throws(LabError) -> Registers {
    try kvm { () throws(KVMError) in try vcpu.registers() }
  }

  // MARK: Memory

  /// `count` 64-bit words of guest-physical memory.
  func words(at address: UInt64, _ count: Int) throws(LabError) -> [UInt64] {
    let view = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try memory.view(at: GuestAddress(address), count: UInt64(count * 8))
    }
    return (0..<count).map { view.load($0 * 8, as: UInt64.self) }
  }

  /// Puts words into guest-physical memory.
  func store(_ words: [UInt64], at address: UInt64) throws(LabError) {
    let view = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try memory.view(at: GuestAddress(address), count: UInt64(words.count * 8))
    }
    for (index, word) in words.enumerated() { view.store(word, index * 8) }
  }

  /// Lets a KVM that keeps shadow tables forget them. It follows what a guest writes to its tables, not
  /// what the lab changes there behind its back, and it has no request for that; without the memory it
  /// has nothing to shadow.
  func forgetTranslations() throws(LabError) {
    let region = memory.regions[0]
    try kvm { () throws(KVMError) in
      try vm.removeMemory(slot: 0)
      try vm.setMemory(slot: 0, region)
    }
  }

  // MARK: KVM's counters

  /// KVM's own count of this VCPU's exits, whoever handled them; nil where KVM doesn't tell.
  func exitCounter() -> ExitCounter? { ExitCounter(vcpu) }
}

/// One of KVM's counters of a VCPU.
struct ExitCounter {
  private let statistics: Statistics
  private let counter: Statistics.Counter

  init?(_ vcpu: VCPU, _ name: String = "exits") {
    guard let statistics = try? vcpu.statistics(), let counter = statistics.counter(name) else {
      return nil
    }
    self.statistics = statistics
    self.counter = counter
  }

  /// Its value now.
  func value() throws(LabError) -> Int {
    Int(truncatingIfNeeded: try kvm { () throws(KVMError) in try statistics.value(of: counter) })
  }
}
