import Doctor
import Host
import Machine

/// Tells how a run ended, on standard error.
struct Account {
  private let machine: Machine
  private let outcome: Outcome
  private let backEnd: BackEnd?

  /// Of a kernel's run with the host's `backEnd`.
  init(_ machine: Machine, _ outcome: Outcome, _ backEnd: BackEnd?) {
    self.machine = machine
    self.outcome = outcome
    self.backEnd = backEnd
  }

  /// Says what there is to say, but nothing of how the run ended if it `isOwned` by who reads that, and
  /// returns the exit status.
  func tell(statistics format: StatisticsFormat?, isOwned: Bool = false) -> Int32 {
    if outcome.isFromOutside { Message.hurry() }
    if !isOwned { tellEnd() }
    if let format, let statistics = machine.statistics {
      StatisticsReport(statistics).tell(format)
    }
    if let failure = machine.traceFailure {
      Message.error(failure)
      return 71
    }
    return outcome.exitStatus
  }

  private func tellEnd() {
    switch outcome {
    case .poweredOff, .halted, .reset, .exited, .stopped(.user): break
    case .stopped(.signal(let number)): Message.note("ended by \(Signal(number).name)")
    case .hostFailed, .inputChanged: Message.error(outcome.description)
    case .timedOut(let positions):
      Message.error("the time is up; the guest was still running")
      for position in positions { Message.line("  VCPU \(position.vcpu): \(position.text)") }
      explainBackEnd()
    case .crashed(let report):
      CrashAccount(report).tell()
      explainBackEnd()
    }
  }

  /// Says so where the host's KVM, not the kernel, may be why a stock kernel came to nothing.
  private func explainBackEnd() {
    guard machine.isKernel, let backEnd else { return }
    for line in backEnd.adviceForKernels { Message.line(line) }
  }
}
