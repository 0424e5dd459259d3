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
    for line in report.exit.advice { Message.line("  " + line) }
  }

  private func tellRegisters() {
    guard !report.registerLines.isEmpty else { return }
    if report.registersAreReset {
      Message.heading("Registers: lost; this KVM resets them at a triple fault.")
      return
    }
    Message.heading("Registers:")
    for line in report.registerLines { Message.line("  " + line) }
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

  /// Asks objdump, for each size of code. Not found by PATH, which is whoever's who started us.
  private struct Listing {
    let bits: Int
    let errand: Errand

    init(_ bits: Int, _ architecture: String) {
      self.bits = bits
      errand = Errand(
        .run(
          ["/usr/bin/objdump", "/usr/local/bin/objdump", "/bin/objdump"],
          [
            "-D", "-b", "binary", "-m", architecture, "-M", "intel", "--adjust-vma", "%x",
            "/dev/fd/\(ChildProgram.inheritedNumber)",
          ]))
    }
  }

  private static let listings = [
    Listing(16, "i8086"), Listing(32, "i386"), Listing(64, "i386:x86-64"),
  ]

  /// Has what it needs at hand, for a process that can't look for it later.
  static func prepare() { _ = listings }

  /// What objdump makes of the bytes, if it is installed.
  private func disassembly() -> [Substring]? {
    guard let file = try? Subprocess.makeTemporaryFile(report.code),
      let listing = Self.listings.first(where: { $0.bits == report.codeBits }),
      let printed = try? listing.errand.perform(report.codeAddress, with: SharedDescriptor(file)),
      let bytes = try? Subprocess.contents(ofTemporaryFile: printed)
    else { return nil }
    let output = String(decoding: bytes, as: UTF8.self)
    // The listing follows the last line that ends in ">:"; its first three lines are enough.
    return output.split(separator: "\n").filter { $0.contains(":\t") }.prefix(4).map { $0 }
  }

  private func digits(_ value: UInt64, _ count: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, count - text.count)) + text
  }
}

extension Exit {
  /// What to try after a crash that showed as this exit, a step a line.
  fileprivate var advice: [String] {
    switch self {
    case .shutdown:
      [
        "see the way there: run it again with --trace",
        "load an IDT before anything can fault, and give vector 8 (double fault) a handler",
      ]
    case .failedEntry:
      [
        "look at CR0, CR4, EFER and the segments below; real mode on an old Intel processor",
        "without unrestricted guests is a known cause: kvmlite doctor names the back end",
      ]
    case .internalError(1):
      [
        "if the bytes at RIP are no code: find the jump or return that went astray with --trace",
        "if they are: avoid the instruction at ring 0, or use a host with kvm_intel or kvm_amd",
        "kvmlite doctor names the back end of this host",
      ]
    case .internalError(2):
      ["check the IDT's base and limit, and the stack of the interrupted code"]
    case .internalError(3): ["check that IDT, TSS and stack are in RAM and mapped"]
    case .internalError: ["see what the kernel says: sudo dmesg | tail"]
    default: ["report it, with the output of kvmlite doctor"]
    }
  }
}
