import Doctor
import Host

/// Whether this host's times mean anything. On a processor made of software they tell what its maker
/// found easy, and counts alone are right.
package struct HostTimes: Sendable, Equatable {
  /// Who makes the processor in software, such as `QEMU's TCG`; nil for a real one.
  package let maker: String?
  /// Whether they were asked for all the same.
  package let wasAsked: Bool

  /// Whether times appear in a report.
  package var areShown: Bool { maker == nil || wasAsked }
  /// Whether anything may be concluded from them.
  package var meanSomething: Bool { maker == nil }

  /// Times of a processor that `maker` makes of software, or of a real one.
  package init(maker: String?, wasAsked: Bool = false) {
    self.maker = maker
    self.wasAsked = wasAsked
  }

  /// Looks at this host's processor and at its machine's vendor.
  package static func read(wasAsked: Bool) -> HostTimes {
    let (_, ebx, ecx, edx) = Processor.cpuid(0x4000_0000)
    let isVirtual = Processor.cpuid(1).2 >> 31 & 1 == 1
    let vendors = ["bios_vendor", "sys_vendor"].map {
      HostText.contents(of: "/sys/class/dmi/id/" + $0, limit: 64)
    }
    return HostTimes(
      maker: maker(isVirtual: isVirtual, signature: [ebx, ecx, edx], vendors: vendors),
      wasAsked: wasAsked)
  }

  /// Who makes the processor. A hypervisor's `signature` is what CPUID leaf 0x40000000 gives in EBX,
  /// ECX and EDX; Bochs has none, but its firmware names it, as older ones of KVM's machines do.
  static func maker(isVirtual: Bool, signature: [UInt32], vendors: [String]) -> String? {
    guard isVirtual else { return vendors.contains { $0.contains("Bochs") } ? "Bochs" : nil }
    let bytes = signature.flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
    }
    return String(decoding: bytes, as: UTF8.self) == "TCGTCGTCGTCG" ? "QEMU's TCG" : nil
  }

  /// What the head of a report says of it; nil where there is nothing to say.
  var line: String? {
    maker.map {
      "The processor is software (\($0)): counts are right, times "
        + (wasAsked ? "mean nothing and are marked." : "are left out (--times shows them).")
    }
  }

  /// What the caption of a table or picture of times ends in.
  var mark: String { meanSomething ? "" : " [\(maker ?? ""): these times mean nothing]" }
}
