import Host
import KVM

/// The host's KVM with all that a machine needs of it before its configuration is known.
package struct KVMHost: Sendable {
  let system: System
  /// What CPUID can answer here.
  let cpuid: CPUID
  /// Whether the local APIC in the kernel has a TSC deadline timer.
  let hasTSCDeadline: Bool
  /// An empty VM.
  let vm: VM

  /// Opens /dev/kvm, and makes the VM.
  package init() throws(KVMError) {
    system = try System()
    let version = try system.version()
    guard version == System.apiVersion else {
      throw KVMError("KVM_GET_API_VERSION", .invalidArgument)
    }
    vm = try system.makeVM()
    hasTSCDeadline = system.value(of: .tscDeadlineTimer) != 0
    cpuid = try system.supportedCPUID()
  }
}

extension CPUID {
  /// How many bits a physical address has (leaf 0x80000008; 36 without it, as Intel SDM says).
  package var addressBits: Int { entry(0x8000_0008).map { Int($0.eax & 0xFF) } ?? 36 }
}
