import KVM
import Machine

/// A crash in words.
extension CrashReport {
  /// What happened, in one line.
  public var summary: String { told?.summary ?? CrashWords(self).summary }
  /// What that means and the likely causes, a sentence a line.
  public var explanation: [String] { told?.explanation ?? CrashWords(self).explanation }
  /// The last exits, oldest first: one line each.
  public var lastExits: [String] { told?.lastExits ?? ExitLine.lines(of: history) }
}

/// The words for each way to crash.
private struct CrashWords {
  let summary: String
  let explanation: [String]

  init(_ report: CrashReport) {
    switch report.exit {
    case .shutdown: self = .tripleFault
    case .failedEntry(let reason): self = .failedEntry(reason)
    case .internalError(let suberror): self = .internalError(suberror, report.internalErrorData)
    default: self = .unexpected(report.exit.reason)
    }
  }

  init(_ summary: String, _ explanation: [String]) {
    self.summary = summary
    self.explanation = explanation
  }

  static let tripleFault = CrashWords(
    "the guest made a triple fault (KVM_EXIT_SHUTDOWN)",
    [
      "An exception came, its handler could not be started, and neither could the double fault's.",
      "Likely causes: no interrupt descriptor table yet, or one with a wrong gate or limit;",
      "a page fault with page tables that don't map the code, the stack or the table itself;",
      "a stack pointer that points nowhere; a jump into data.",
    ])

  static func failedEntry(_ reason: UInt64) -> CrashWords {
    CrashWords(
      "the processor refused to enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason 0x"
        + String(reason, radix: 16) + ")",
      [
        "The guest's state breaks a rule that the processor checks on each entry:",
        "segments, control registers, EFER or the instruction pointer contradict each other.",
        "On VT-x 0x80000021 means just that (Intel SDM vol 3, 27.3.1: checks on the guest state).",
      ])
  }

  static func internalError(_ suberror: UInt32, _ data: [UInt64]) -> CrashWords {
    let words =
      data.isEmpty
      ? "" : "; its data: " + data.map { "0x" + String($0, radix: 16) }.joined(separator: " ")
    switch suberror {
    case 1:
      return CrashWords(
        "KVM could not emulate an instruction (KVM_EXIT_INTERNAL_ERROR, emulation failure)",
        [
          "KVM emulates what the processor can't run directly: port and memory-mapped I/O, real",
          "mode on some processors, all of ring 0 on kvm_pvm. The instruction at RIP is one that its",
          "emulator lacks, or RIP has run into what is no code.",
        ])
    case 2:
      return CrashWords(
        "an exception came while KVM delivered an event (KVM_EXIT_INTERNAL_ERROR, simultaneous "
          + "exceptions)" + words,
        ["The guest's interrupt descriptor table or stack lies where KVM can't reach it."])
    case 3:
      return CrashWords(
        "an event could not be delivered (KVM_EXIT_INTERNAL_ERROR, delivery event)" + words,
        ["The processor stopped in the middle of delivering an interrupt or exception:"]
          + ["most often the IDT, the TSS or the stack is in an address without memory."])
    default:
      return CrashWords(
        "KVM could not go on (KVM_EXIT_INTERNAL_ERROR, suberror \(suberror))" + words,
        ["The kernel met a state that it doesn't handle."])
    }
  }

  static func unexpected(_ reason: ExitReason) -> CrashWords {
    CrashWords(
      "the guest left with \(reason.name) (\(reason.number)): \(reason.meaning)",
      ["kvmlite never asks KVM for exits of this kind, so there is nobody to answer it."])
  }
}

extension Machine {
  /// The last exits of each VCPU, as lines; of one that runs, as far as they can be read meanwhile.
  package var lastExits: [String] { histories.flatMap { ExitLine.lines(of: $0) } }
}
