import KVM

/// What CPUID tells a guest of its processors: one package, one thread a core, APIC IDs from 0.
enum Topology {
  /// Adjusts `cpuid`, which is the host's, to VCPU `id` of `count`.
  static func apply(to cpuid: inout CPUID, id: Int, count: Int) {
    setAPICID(&cpuid, id: UInt32(id), count: UInt32(count))
    setExtendedTopology(&cpuid, id: UInt32(id), count: UInt32(count))
    setCacheSharing(&cpuid, count: UInt32(count))
    setAMDCores(&cpuid, id: UInt32(id), count: UInt32(count))
  }

  /// Intel SDM vol 2A, CPUID leaf 1: initial APIC ID in EBX[31:24], logical processors in EBX[23:16],
  /// HTT in EDX[28] where there is more than one.
  private static func setAPICID(_ cpuid: inout CPUID, id: UInt32, count: UInt32) {
    cpuid.update(leaf: 1) { entry in
      entry.ebx = entry.ebx & 0xFFFF | id << 24 | min(count, 255) << 16
      if count > 1 { entry.edx |= 1 << 28 } else { entry.edx &= ~(1 << 28) }
    }
  }

  /// Leaves 0xB and 0x1F: x2APIC ID in EDX; subleaf 0 is the level of threads (ECX[15:8] = 1), 1 that
  /// of cores (2); EAX is the shift to the next level, EBX the number of logical processors there.
  private static func setExtendedTopology(_ cpuid: inout CPUID, id: UInt32, count: UInt32) {
    for leaf: UInt32 in [0xB, 0x1F] {
      // KVM gives the level of cores only where the host has one.
      if var cores = cpuid.entry(leaf, 0), cpuid.entry(leaf, 1) == nil {
        cores.index = 1
        cpuid.entries.append(cores)
      }
      cpuid.update(leaf: leaf) { entry in
        entry.edx = id
        entry.ecx = entry.index & 0xFF
        switch entry.index {
        case 0: (entry.eax, entry.ebx, entry.ecx) = (0, 1, entry.ecx | 1 << 8)
        case 1: (entry.eax, entry.ebx, entry.ecx) = (width(of: count), count, entry.ecx | 2 << 8)
        default: (entry.eax, entry.ebx) = (0, 0)
        }
      }
    }
  }

  /// Leaf 4, and AMD's 0x8000001D: EAX[25:14] is the number of processors that share a cache, less 1;
  /// leaf 4 has the cores of the package, less 1, in EAX[31:26]. Only the last level is shared.
  private static func setCacheSharing(_ cpuid: inout CPUID, count: UInt32) {
    cpuid.update(leaf: 4) { entry in
      guard entry.eax & 0x1F != 0 else { return }
      let level = entry.eax >> 5 & 7
      let sharing = level >= 3 ? count - 1 : 0
      entry.eax = entry.eax & 0x3FFF | min(sharing, 0xFFF) << 14 | min(count - 1, 0x3F) << 26
    }
    cpuid.update(leaf: 0x8000_001D) { entry in
      guard entry.eax & 0x1F != 0 else { return }
      let sharing = entry.eax >> 5 & 7 >= 3 ? count - 1 : 0
      entry.eax = entry.eax & 0x3FFF | min(sharing, 0xFFF) << 14
    }
  }

  /// AMD APM vol 3, appendix E.4: 0x80000008 ECX has the cores less 1 in [7:0] and the width of the
  /// APIC ID's core part in [15:12]; 0x8000001E the APIC ID in EAX, the core in EBX[7:0] with its
  /// threads less 1 in [15:8], and the node in ECX. On Intel both registers are 0 and stay so.
  private static func setAMDCores(_ cpuid: inout CPUID, id: UInt32, count: UInt32) {
    let isAMD = cpuid.entry(0x8000_001E) != nil
    cpuid.update(leaf: 0x8000_0008) { entry in
      guard isAMD else { return }
      entry.ecx = entry.ecx & ~0xF0FF | min(count - 1, 0xFF) | width(of: count) << 12
    }
    cpuid.update(leaf: 0x8000_001E) { entry in
      (entry.eax, entry.ebx, entry.ecx) = (id, id & 0xFF, 0)
    }
    // Leaf 0x80000001 ECX[22], TopologyExtensions, stays as the host has it; CmpLegacy in [1] says
    // that HTT means cores.
    cpuid.update(leaf: 0x8000_0001) { entry in
      guard isAMD else { return }
      if count > 1 { entry.ecx |= 1 << 1 } else { entry.ecx &= ~(1 << 1) }
    }
  }

  /// How many bits number `count` processors.
  private static func width(of count: UInt32) -> UInt32 {
    count <= 1 ? 0 : UInt32(UInt32.bitWidth - (count - 1).leadingZeroBitCount)
  }
}
