import Host
import Inspect
import KVM
import Machine

/// Tells a crash: what happened, why, what is left to see, and what to try.
struct CrashAccount {
  private let report: CrashReport

  init(_ report: CrashReport) { self.report = report }

  func tell() {
    Message.error("VCPU \(report.vcpu): \(report.summary)")
    for line in report.explanation { Message.line("  " + line) }
    tellRegisters()
    tellCode()
    if !report.lastExits.isEmpty {
      Message.heading("Last exits, oldest first:")
      for line in report.lastExits { Message.line(line) }
    }
    Message.heading("What to try:")
    for line in report.advice { Message.line("  " + line) }
  }

  private func tellRegisters() {
    guard let general = report.registers, let special = report.specialRegisters else { return }
    if report.registersAreReset {
      Message.heading("Registers: lost; this KVM resets them at a triple fault.")
      return
    }
    Message.heading("Registers:")
    let table: [[(String, UInt64)]] = [
      [("RAX", general.rax), ("RBX", general.rbx), ("RCX", general.rcx), ("RDX", general.rdx)],
      [("RSI", general.rsi), ("RDI", general.rdi), ("RBP", general.rbp), ("RSP", general.rsp)],
      [("R8", general.r8), ("R9", general.r9), ("R10", general.r10), ("R11", general.r11)],
      [("R12", general.r12), ("R13", general.r13), ("R14", general.r14), ("R15", general.r15)],
      [("RIP", general.rip), ("RFL", general.rflags), ("CR2", special.cr2), ("CR3", special.cr3)],
      [("CR0", special.cr0), ("CR4", special.cr4), ("EFER", special.efer)],
    ]
    for row in table {
      Message.line("  " + row.map { column($0.0, 5) + digits($0.1, 16) }.joined(separator: "  "))
    }
    let segments = [
      ("CS", special.cs), ("SS", special.ss), ("DS", special.ds), ("ES", special.es),
      ("FS", special.fs), ("GS", special.gs),
    ]
    for (name, segment) in segments {
      Message.line(
        "  " + column(name, 5) + digits(UInt64(segment.selector), 4)
          + "  base " + digits(segment.base, 16) + "  limit " + digits(UInt64(segment.limit), 8))
    }
    Message.line(
      "  GDT  base \(digits(special.gdt.base, 16))  limit \(digits(UInt64(special.gdt.limit), 4))"
        + "   IDT  base \(digits(special.idt.base, 16))  limit "
        + digits(UInt64(special.idt.limit), 4))
  }

  private func tellCode() {
    guard !report.code.isEmpty else { return }
    Message.heading("Code at 0x\(digits(report.codeAddress, 1)):")
    if let listing = disassembly(), !listing.isEmpty {
      for line in listing { Message.line("  " + line) }
    } else {
      Message.line("  " + report.code.map { digits(UInt64($0), 2) }.joined(separator: " "))
      Message.line("  (install binutils to see it disassembled)")
    }
  }

  /// What objdump makes of the bytes, if it is installed.
  private func disassembly() -> [Substring]? {
    guard let file = try? Subprocess.makeTemporaryFile(report.code) else { return nil }
    let architecture =
      switch report.codeBits {
      case 16: "i8086"
      case 32: "i386"
      default: "i386:x86-64"
      }
    let command =
      "objdump -D -b binary -m \(architecture) -M intel "
      + "--adjust-vma=0x\(digits(report.codeAddress, 1)) /dev/fd/\(file.number) 2>/dev/null"
    guard let output = Subprocess.output(of: command) else { return nil }
    // The listing follows the last line that ends in ">:"; its first three lines are enough.
    return output.split(separator: "\n").filter { $0.contains(":\t") }.prefix(4).map { $0 }
  }

  private func digits(_ value: UInt64, _ count: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }
}
