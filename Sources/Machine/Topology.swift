import KVM

/// What CPUID tells a guest of its processors: one package, one thread a core.
enum Topology {
  /// The leaves of `host` as VCPU `id` of `count` shall see them.
  ///
  /// Intel SDM vol 2A, CPUID: leaf 1 has the initial APIC ID in EBX[31:24], the number of logical
  /// processors in EBX[23:16] and HTT in EDX[28]; leaves 0xB and 0x1F have the x2APIC ID in EDX and
  /// one level a subleaf.
  static func cpuid(_ host: CPUID, id: Int, count: Int) -> CPUID {
    var cpuid = host
    let apic = UInt32(id)
    let processors = UInt32(min(count, 255))
    cpuid.update(leaf: 1) { entry in
      entry.ebx = entry.ebx & 0xFFFF | apic << 24 | processors << 16
      if count > 1 { entry.edx |= 1 << 28 } else { entry.edx &= ~(1 << 28) }
    }
    let shift = UInt32(count.nextPowerOfTwoExponent)
    for leaf in [UInt32(0xB), 0x1F] {
      cpuid.update(leaf: leaf) { entry in
        entry.edx = apic
        entry.ecx &= 0xFF
        switch entry.index {
        case 0: (entry.eax, entry.ebx) = (0, 1)
        case 1: (entry.eax, entry.ebx) = (shift, UInt32(count))
        default: (entry.eax, entry.ebx) = (0, 0)
        }
        entry.ecx |= entry.index < 2 ? (entry.index + 1) << 8 : 0
      }
    }
    return cpuid
  }
}

extension Int {
  /// The exponent of the smallest power of two that isn't smaller; 0 for 1.
  fileprivate var nextPowerOfTwoExponent: Int {
    self <= 1 ? 0 : Int.bitWidth - (self - 1).leadingZeroBitCount
  }
}
