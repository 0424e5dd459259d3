import KVM
import Memory

/// The account of a guest's crash: what happened, what it means, and what is left to see.
public struct CrashReport: Sendable {
  /// What happened, in one line.
  public let summary: String
  /// What that means and the likely causes, a sentence a line.
  public let explanation: [String]
  /// What to try, a step a line.
  public let advice: [String]
  /// The VCPU it happened on.
  public let vcpu: Int
  /// The general registers, as far as KVM still has them.
  public let registers: Registers?
  /// Segments and control registers, likewise.
  public let specialRegisters: SpecialRegisters?
  /// Whether the registers are what the guest had; after a triple fault some back ends reset them.
  public let registersAreReset: Bool
  /// The bytes at the instruction pointer, up to 16; empty where they can't be read.
  public let code: [UInt8]
  /// The linear address of `code`.
  public let codeAddress: UInt64
  /// 16, 32 or 64: how the bytes are to be read.
  public let codeBits: Int
  /// The last exits, oldest first: one line each.
  public let lastExits: [String]

  /// Makes the account of `exit`, on the VCPU's own thread.
  init(_ exit: Exit, _ runner: VCPURunner, _ memory: GuestMemory) {
    let vcpu = runner.vcpu
    let account = CrashAccount(exit, vcpu)
    summary = account.summary
    explanation = account.explanation
    advice = account.advice
    self.vcpu = vcpu.id
    registers = try? vcpu.registers()
    specialRegisters = try? vcpu.specialRegisters()
    let resetVector: UInt64 = 0xFFF0
    registersAreReset =
      account.mayReset && registers?.rip == resetVector && specialRegisters?.cs.selector == 0xF000
    lastExits = ExitLine.lines(of: runner)
    codeBits = specialRegisters.map(CrashReport.bits) ?? 16
    let base = codeBits == 64 ? 0 : specialRegisters?.cs.base ?? 0
    codeAddress = base &+ (registers?.rip ?? 0)
    code = registersAreReset ? [] : CrashReport.readCode(codeAddress, vcpu, memory)
  }

  /// The code segment's word on its instructions: L, then D/B (Intel SDM vol 3, 3.4.5).
  private static func bits(_ special: SpecialRegisters) -> Int {
    let isLong = special.efer & ControlBit.longModeActive != 0 && special.cs.l != 0
    return isLong ? 64 : special.cs.db != 0 ? 32 : 16
  }

  private static func readCode(_ address: UInt64, _ vcpu: VCPU, _ memory: GuestMemory) -> [UInt8] {
    var code: [UInt8] = []
    while code.count < 16 {
      let linear = address &+ UInt64(code.count)
      guard let translation = try? vcpu.translate(linear), translation.valid != 0 else { break }
      let left = Int(4096 - linear % 4096)
      let physical = GuestAddress(translation.physical_address)
      guard let bytes = try? memory.read(min(left, 16 - code.count), at: physical) else { break }
      code += bytes
    }
    return code
  }
}

/// The words for each way to crash.
private struct CrashAccount {
  var summary: String
  var explanation: [String]
  var advice: [String]
  var mayReset = false

  init(_ exit: Exit, _ vcpu: VCPU) {
    switch exit {
    case .shutdown: self = .tripleFault
    case .failedEntry(let reason): self = .failedEntry(reason)
    case .internalError(let suberror): self = .internalError(suberror, vcpu.internalErrorData())
    default: self = .unexpected(exit.reason)
    }
  }

  init(_ summary: String, _ explanation: [String], _ advice: [String], mayReset: Bool = false) {
    self.summary = summary
    self.explanation = explanation
    self.advice = advice
    self.mayReset = mayReset
  }

  static let tripleFault = CrashAccount(
    "the guest made a triple fault (KVM_EXIT_SHUTDOWN)",
    [
      "An exception came, its handler could not be started, and neither could the double fault's.",
      "Likely causes: no interrupt descriptor table yet, or one with a wrong gate or limit;",
      "a page fault with page tables that don't map the code, the stack or the table itself;",
      "a stack pointer that points nowhere; a jump into data.",
    ],
    [
      "see the way there: run it again with --trace",
      "load an IDT before anything can fault, and give vector 8 (double fault) a handler",
    ],
    mayReset: true)

  static func failedEntry(_ reason: UInt64) -> CrashAccount {
    CrashAccount(
      "the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason 0x"
        + String(reason, radix: 16) + ")",
      [
        "The guest's state breaks a rule that the processor checks on each entry:",
        "segments, control registers, EFER or the instruction pointer contradict each other.",
        "On VT-x 0x80000021 means just that (Intel SDM vol 3, 27.3.1: checks on the guest state).",
      ],
      [
        "look at CR0, CR4, EFER and the segments below; real mode on an old Intel processor",
        "without unrestricted guests is a known cause: kvmlite doctor names the back end",
      ])
  }

  static func internalError(_ suberror: UInt32, _ data: [UInt64]) -> CrashAccount {
    let words =
      data.isEmpty
      ? "" : "; its data: " + data.map { "0x" + String($0, radix: 16) }.joined(separator: " ")
    switch suberror {
    case 1:
      return CrashAccount(
        "KVM could not emulate an instruction (KVM_EXIT_INTERNAL_ERROR, emulation failure)",
        [
          "KVM emulates what the processor can't run directly: port and memory-mapped I/O, real",
          "mode on some processors, all of ring 0 on kvm_pvm. The instruction at RIP is one that its",
          "emulator lacks, or RIP has run into what is no code.",
        ],
        [
          "if the bytes at RIP are no code: find the jump or return that went astray with --trace",
          "if they are: avoid the instruction at ring 0, or use a host with kvm_intel or kvm_amd",
          "kvmlite doctor names the back end of this host",
        ])
    case 2:
      return CrashAccount(
        "an exception came while KVM delivered an event (KVM_EXIT_INTERNAL_ERROR, simultaneous "
          + "exceptions)" + words,
        ["The guest's interrupt descriptor table or stack lies where KVM can't reach it."],
        ["check the IDT's base and limit, and the stack of the interrupted code"])
    case 3:
      return CrashAccount(
        "an event could not be delivered (KVM_EXIT_INTERNAL_ERROR, delivery event)" + words,
        ["The processor stopped in the middle of delivering an interrupt or exception:"]
          + ["most often the IDT, the TSS or the stack is in an address without memory."],
        ["check that all three are in RAM and mapped"])
    default:
      return CrashAccount(
        "KVM could not go on (KVM_EXIT_INTERNAL_ERROR, suberror \(suberror))" + words,
        ["The kernel met a state that it doesn't handle."],
        ["see what the kernel says: sudo dmesg | tail"])
    }
  }

  static func unexpected(_ reason: ExitReason) -> CrashAccount {
    CrashAccount(
      "the guest left with \(reason.name) (\(reason.number)): \(reason.meaning)",
      ["kvmlite never asks KVM for exits of this kind, so there is nobody to answer it."],
      ["report it, with the output of kvmlite doctor"])
  }
}
