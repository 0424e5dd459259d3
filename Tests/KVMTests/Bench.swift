import KVM
import Memory
import TestSupport
import Testing

/// A VM with some RAM and one VCPU in real mode, without anything else: what wrappers are tried on.
struct Bench {
  /// Where the code goes and starts.
  static let code: UInt64 = 0x1000

  let vm: VM
  let vcpu: VCPU
  let memory: GuestMemory

  /// Makes it, with `code` at 0x1000 and CS:IP = 0:0x1000.
  init(
    _ code: [UInt8] = [], ramSize: UInt64 = 1 << 20,
    roms: [(start: GuestAddress, contents: [UInt8])] = [], hasIRQChip: Bool = false,
    logsDirtyPages: Bool = false, prepare: (VM) throws -> Void = { _ in }
  ) throws {
    let system = try System()
    vm = try system.makeVM()
    try vm.setIdentityMapAddress(0xFFFB_C000)
    try vm.setTSSAddress(0xFFFB_D000)
    memory = try GuestMemory(ramSize: ramSize, roms: roms)
    try memory.write(code.span, at: GuestAddress(Self.code))
    if hasIRQChip { try vm.makeIRQChip() }
    try prepare(vm)
    for (slot, region) in memory.regions.enumerated() {
      try vm.setMemory(
        slot: UInt32(slot), region, logsDirtyPages: logsDirtyPages && region.kind == .ram)
    }
    vcpu = try vm.makeVCPU(id: 0)
    try vcpu.setCPUID(system.supportedCPUID())
    var special = try vcpu.specialRegisters()
    (special.cs.base, special.cs.selector) = (0, 0)
    try vcpu.setSpecialRegisters(special)
    var registers = Registers()
    registers.rip = Self.code
    registers.rsp = 0xF000
    registers.rflags = 2
    try vcpu.setRegisters(registers)
  }

  /// Switches the VCPU to long mode with page tables at 0x9000: the first 2 MiB lead to themselves,
  /// 2 MiB at 0x600000 to 0x200000, and nothing else is mapped.
  func enterLongMode() throws {
    let presentAndWritable: UInt64 = 3
    let large: UInt64 = 1 << 7
    try memory.view(at: 0x9000, count: 8).store(0xA000 | presentAndWritable, 0)
    try memory.view(at: 0xA000, count: 8).store(0xB000 | presentAndWritable, 0)
    let directory = try memory.view(at: 0xB000, count: 4096)
    directory.store(large | presentAndWritable, 0)
    directory.store(0x20_0000 | large | presentAndWritable, 3 * 8)
    var special = try vcpu.specialRegisters()
    special.cr3 = 0x9000
    special.cr4 |= 1 << 5  // PAE
    special.cr0 |= 1 << 31 | 1  // PG, PE
    special.efer |= 1 << 8 | 1 << 10  // LME, LMA
    (special.cs.l, special.cs.db) = (1, 0)
    special.idt.limit = 0
    try vcpu.setSpecialRegisters(special)
  }

  /// Runs until something else than an interruption.
  func run() throws -> Exit {
    let watchdog = try Watchdog(vcpu)
    defer { watchdog.stop() }
    while true {
      let exit = try vcpu.run()
      guard case .interrupted = exit else { return exit }
      if watchdog.isOver { throw Overdue("the guest did nothing that leaves it") }
    }
  }

  /// Runs to an exit that must be port I/O.
  func runToPortIO(_ location: SourceLocation = #_sourceLocation) throws -> Exit.PortIO {
    let exit = try run()
    guard case .portIO(let io) = exit else {
      throw UnexpectedExit(exit: exit, wanted: "port I/O", location)
    }
    return io
  }

  /// Runs to an exit that must be MMIO.
  func runToMMIO(_ location: SourceLocation = #_sourceLocation) throws -> Exit.MMIO {
    let exit = try run()
    guard case .mmio(let mmio) = exit else {
      throw UnexpectedExit(exit: exit, wanted: "MMIO", location)
    }
    return mmio
  }

  /// Runs to an exit that must be HLT, which leaves only without an IRQ chip.
  func runToHalt(_ location: SourceLocation = #_sourceLocation) throws {
    let exit = try run()
    guard case .halt = exit else { throw UnexpectedExit(exit: exit, wanted: "HLT", location) }
  }
}

/// The guest left for another reason than the test is about.
struct UnexpectedExit: Error, CustomStringConvertible {
  let description: String

  init(exit: Exit, wanted: String, _ location: SourceLocation) {
    description = "\(exit.reason.name) instead of \(wanted) at \(location)"
  }
}
