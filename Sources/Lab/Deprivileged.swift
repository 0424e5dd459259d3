import KVM
import Memory

/// A guest's kernel in ring 3, whose privileged instructions trap and are done here: classic
/// trap-and-emulate.
struct Deprivileged {
  /// One trap.
  struct Trap {
    let address: UInt64
    let instruction: String
    let effect: String
  }

  /// The processor that the kernel believes in.
  struct VirtualCPU {
    var cr3: UInt64 = 0x99000
    var efer: UInt64 = 0xD01
    var interruptsAreOn = true
    var output: [UInt8] = []
    var isHalted = false
  }

  private(set) var traps: [Trap] = []
  private(set) var cpu = VirtualCPU()
  /// What the kernel left in memory: roots found and set, EFER, the port's answer, CS.
  private(set) var results: [UInt64] = []

  init() throws(LabError) {
    let kit = try Probe.Kit("deprivileged")
    let bench = try Bench(kit.image, what: "the kernel in ring 3")
    try bench.start(at: kit.address(of: "kernel"), .user)
    // The kernel has eight privileged instructions; a loop would be a mistake.
    for _ in 0..<20 where !cpu.isHalted {
      let exit = try bench.run()
      guard case .halt = exit, let exception = try bench.exception(), exception.vector == 13 else {
        throw .unexpected("the kernel in ring 3 ended by \(exit.reason.name)")
      }
      var registers = try bench.registers()
      // The frame: error code, RIP, CS, RFLAGS, RSP.
      let frame = try bench.words(at: registers.rsp, 5)
      registers.rip = frame[1]
      (registers.rflags, registers.rsp) = (frame[3], frame[4])
      let length = try emulate(bench, &registers)
      registers.rip += length
      try bench.start(at: registers.rip, .user) { $0 = registers }
    }
    results = try bench.words(at: BenchLayout.scratch, 5)
  }

  /// Does the instruction at RIP on the virtual processor and returns its length.
  private mutating func emulate(
    _ bench: Bench, _ registers: inout Registers
  ) throws(LabError) -> UInt64 {
    let code = try inMemory { () throws(GuestMemory.OutOfBounds) in
      try bench.memory.read(3, at: GuestAddress(registers.rip))
    }
    func note(_ instruction: String, _ effect: String, _ length: UInt64) -> (Trap, UInt64) {
      (Trap(address: registers.rip, instruction: instruction, effect: effect), length)
    }
    let done: (trap: Trap, length: UInt64)
    switch (code[0], code[1], code[2]) {
    case (0xFA, _, _):
      cpu.interruptsAreOn = false
      done = note("CLI", "virtual IF = 0", 1)
    case (0xFB, _, _):
      cpu.interruptsAreOn = true
      done = note("STI", "virtual IF = 1", 1)
    case (0xF4, _, _):
      cpu.isHalted = true
      done = note("HLT", "the virtual processor sleeps", 1)
    case (0x0F, 0x20, 0xD8):
      registers.rax = cpu.cr3
      done = note("MOV RAX,CR3", "gives the virtual CR3, \(hex(cpu.cr3))", 3)
    case (0x0F, 0x22, 0xD8):
      cpu.cr3 = registers.rax
      done = note("MOV CR3,RAX", "virtual CR3 = \(hex(cpu.cr3))", 3)
    case (0x0F, 0x32, _) where registers.rcx == 0xC000_0080:
      (registers.rax, registers.rdx) = (cpu.efer & 0xFFFF_FFFF, cpu.efer >> 32)
      done = note("RDMSR EFER", "gives the virtual EFER, \(hex(cpu.efer))", 2)
    case (0xE6, 0xE9, _):
      cpu.output.append(UInt8(truncatingIfNeeded: registers.rax))
      done = note("OUT 0xE9", "a virtual console prints \(hex(registers.rax & 0xFF))", 2)
    case (0xE4, 0xE9, _):
      registers.rax = registers.rax & ~0xFF | 0xE9
      done = note("IN 0xE9", "the virtual console answers 0xe9", 2)
    default:
      throw .unexpected(
        "the kernel in ring 3 used an instruction that the lab doesn't emulate, at "
          + hex(registers.rip))
    }
    traps.append(done.trap)
    return done.length
  }
}
