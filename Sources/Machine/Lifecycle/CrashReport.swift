import KVM
import Memory

/// What is known of a guest's crash: the exit it was, and what is left to see. Inspect has the words.
public struct CrashReport: Sendable {
  /// The VCPU it happened on.
  public let vcpu: Int
  /// The exit that nobody could answer.
  package let exit: Exit
  /// What KVM says with an internal error; empty for other exits.
  package let internalErrorData: [UInt64]
  /// The general registers, as far as KVM still has them.
  public let registers: Registers?
  /// Segments and control registers, likewise.
  public let specialRegisters: SpecialRegisters?
  /// Whether the registers are what a reset leaves, instead of what the guest had; some back ends reset
  /// them at a triple fault.
  public let registersAreReset: Bool
  /// The bytes at the instruction pointer, up to 16; empty where they can't be read.
  public let code: [UInt8]
  /// The linear address of `code`.
  public let codeAddress: UInt64
  /// 16, 32 or 64: how the bytes are to be read.
  public let codeBits: Int
  /// The last exits.
  package let history: ExitHistory
  /// What the process that had the machine says of it; nil for this one.
  package let told: Told?

  /// Makes the account of `exit`, on the VCPU's own thread.
  init(_ exit: Exit, _ runner: VCPURunner, _ memory: GuestMemory) {
    let vcpu = runner.vcpu
    self.vcpu = vcpu.id
    self.exit = exit
    if case .internalError = exit {
      internalErrorData = vcpu.internalErrorData()
    } else {
      internalErrorData = []
    }
    registers = try? vcpu.registers()
    specialRegisters = try? vcpu.specialRegisters()
    registersAreReset =
      exit.isShutdown && registers?.rip == 0xFFF0 && specialRegisters?.cs.selector == 0xF000
    (history, told) = (runner.history, nil)
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

extension Exit {
  fileprivate var isShutdown: Bool {
    if case .shutdown = self { true } else { false }
  }
}
