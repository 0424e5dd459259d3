import Host
import KVM
import Machine

/// How a run ended, in words.
extension Outcome: CustomStringConvertible {
  /// In a sentence; a crash takes several lines.
  public var description: String {
    switch self {
    case .poweredOff: "the guest switched the power off"
    case .halted: "the guest halted, and nothing can wake it"
    case .reset: "the guest asked for a reset"
    case .exited(let value): "the guest wrote \(value) to the exit port"
    case .crashed(let report): report.description
    case .timedOut(let positions):
      (["the time was up, and the guest was still running"]
        + positions.map { "VCPU \($0.vcpu): \($0.text)" }).joined(separator: "\n  ")
    case .stopped(.user): "the run was stopped from outside"
    case .stopped(.signal(let number)): "the run was ended by \(Signal(number).name)"
    case .inputChanged(let path):
      "\(path): was written to since the machine started: it can't be reset with that; start it anew"
    case .hostFailed(let message): message
    }
  }
}

extension CrashReport: CustomStringConvertible {
  /// What happened on which VCPU, what that means, and what is left to see; several lines.
  public var description: String {
    var lines = ["VCPU \(vcpu): \(summary)"]
    lines += explanation.map { "  " + $0 }
    if registersAreReset {
      lines.append("Registers: lost; this KVM resets them at a triple fault.")
    } else if !registerLines.isEmpty {
      lines += ["Registers:"] + registerLines.map { "  " + $0 }
    }
    if !code.isEmpty {
      let bytes = code.map { digits(UInt64($0), 2) }.joined(separator: " ")
      lines += ["Code at \(hex(codeAddress)):", "  " + bytes]
    }
    if !lastExits.isEmpty { lines += ["Last exits, oldest first:"] + lastExits }
    return lines.joined(separator: "\n")
  }

  /// The registers, a few a line; none where KVM no longer has them.
  public var registerLines: [String] {
    guard let general = registers, let special = specialRegisters else { return [] }
    let table: [[(String, UInt64)]] = [
      [("RAX", general.rax), ("RBX", general.rbx), ("RCX", general.rcx), ("RDX", general.rdx)],
      [("RSI", general.rsi), ("RDI", general.rdi), ("RBP", general.rbp), ("RSP", general.rsp)],
      [("R8", general.r8), ("R9", general.r9), ("R10", general.r10), ("R11", general.r11)],
      [("R12", general.r12), ("R13", general.r13), ("R14", general.r14), ("R15", general.r15)],
      [("RIP", general.rip), ("RFL", general.rflags), ("CR2", special.cr2), ("CR3", special.cr3)],
      [("CR0", special.cr0), ("CR4", special.cr4), ("EFER", special.efer)],
    ]
    let segments = [
      ("CS", special.cs), ("SS", special.ss), ("DS", special.ds), ("ES", special.es),
      ("FS", special.fs), ("GS", special.gs),
    ]
    let rows = table.map { row in
      row.map { pad($0.0, 5) + digits($0.1, 16) }.joined(separator: "  ")
    }
    return rows
      + segments.map { name, segment in
        pad(name, 5) + digits(UInt64(segment.selector), 4)
          + "  base " + digits(segment.base, 16) + "  limit " + digits(UInt64(segment.limit), 8)
      } + [
        "GDT  base \(digits(special.gdt.base, 16))  limit \(digits(UInt64(special.gdt.limit), 4))"
          + "   IDT  base \(digits(special.idt.base, 16))  limit "
          + digits(UInt64(special.idt.limit), 4)
      ]
  }

  private func digits(_ value: UInt64, _ count: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }
}
