import CLinux

/// The processor that this process runs on.
package enum Processor {
  /// What it says of itself for `leaf`, subleaf 0: EAX, EBX, ECX and EDX. Corresponds to the CPUID
  /// instruction.
  package static func cpuid(_ leaf: UInt32) -> (UInt32, UInt32, UInt32, UInt32) {
    let answer = clinux_cpuid(leaf)
    return (answer.eax, answer.ebx, answer.ecx, answer.edx)
  }
}
