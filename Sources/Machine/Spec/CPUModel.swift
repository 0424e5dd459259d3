import Host
import KVM

extension CPUModel {
  /// What CPUID answers on VCPU `id` of `count`, from what the host and its KVM can do.
  func cpuid(_ host: KVMHost, id: Int, count: Int) -> CPUID {
    var cpuid = host.cpuid
    switch self {
    case .host: Self.addName(&cpuid)
    case .baseline: Self.restrict(&cpuid)
    }
    if host.hasTSCDeadline {
      // KVM_GET_SUPPORTED_CPUID leaves this bit out: it depends on the local APIC in the kernel.
      cpuid.update(leaf: 1) { $0.ecx |= 1 << 24 }
    }
    // A hypervisor is here (Intel SDM calls the bit reserved, AMD APM vol 3 E.3.2 names it).
    cpuid.update(leaf: 1) { $0.ecx |= 1 << 31 }
    Topology.apply(to: &cpuid, id: id, count: count)
    return cpuid
  }

  /// The same on each of `count` VCPUs.
  func cpuids(_ host: KVMHost, count: Int) -> [CPUID] {
    (0..<count).map { cpuid(host, id: $0, count: count) }
  }

  /// The processor's name, 48 characters in leaves 0x80000002 to 4 (Intel SDM vol 2A, CPUID; AMD APM
  /// vol 3, E.4.3): some KVMs leave it to their user.
  private static func addName(_ cpuid: inout CPUID) {
    for leaf: UInt32 in 0x8000_0002...0x8000_0004 {
      cpuid.update(leaf: leaf) { entry in
        guard entry.eax | entry.ebx | entry.ecx | entry.edx == 0 else { return }
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = Processor.cpuid(leaf)
      }
    }
  }

  /// Leaf 1: SSE3, CMPXCHG16B, SSSE3, SSE4.1, SSE4.2, x2APIC, POPCNT and the hypervisor's bit of ECX;
  /// in EDX all of the original 64-bit processors. Leaf 7, XSAVE and AVX are off.
  private static func restrict(_ cpuid: inout CPUID) {
    cpuid.update(leaf: 1) { entry in
      entry.ecx &= 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 31
      entry.edx &= 0x1783_FBFF
    }
    cpuid.update(leaf: 7) { ($0.eax, $0.ebx, $0.ecx, $0.edx) = (0, 0, 0, 0) }
    cpuid.update(leaf: 0xD) { ($0.eax, $0.ebx, $0.ecx, $0.edx) = (0, 0, 0, 0) }
    // LAHF in 64-bit mode, and TopologyExtensions on AMD; NX, SYSCALL, 64-bit mode in EDX.
    cpuid.update(leaf: 0x8000_0001) { entry in
      entry.ecx &= 1 << 0 | 1 << 1 | 1 << 22
      entry.edx &= 0x2193_FBFF
    }
    cpuid.update(leaf: 0x8000_0008) { $0.ebx = 0 }
  }
}
