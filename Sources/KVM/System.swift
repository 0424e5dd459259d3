import CKVM
import Host

/// The host's KVM: the open /dev/kvm, from which VMs are made.
package final class System: Sendable {
  let descriptor: FileDescriptor

  /// The one version of the KVM API there has been since Linux 2.6.22.
  package static let apiVersion: Int32 = KVM_API_VERSION

  /// Opens `path`, and throws `open` with `ENOENT`, `EACCES` and so on where that fails.
  package init(path: String = "/dev/kvm") throws(KVMError) {
    do {
      descriptor = try FileDescriptor(opening: path, .readWrite)
    } catch {
      throw KVMError("open", error)
    }
  }

  /// The API's version. Corresponds to `KVM_GET_API_VERSION`.
  package func version() throws(KVMError) -> Int32 {
    try check("KVM_GET_API_VERSION", ckvm_get_api_version(descriptor.number))
  }

  /// What this KVM says to `capability`: 0 for no, 1 or a number of the capability's own for yes.
  ///
  /// Corresponds to `KVM_CHECK_EXTENSION`.
  package func value(of capability: Capability) -> Int {
    Int(max(0, ckvm_check_extension(descriptor.number, UInt(capability.number))))
  }

  /// The CPUID leaves that this KVM and this host's processor can give a guest.
  ///
  /// Corresponds to `KVM_GET_SUPPORTED_CPUID`.
  package func supportedCPUID() throws(KVMError) -> CPUID {
    let (result, entries) = unsafe withFlexibleArray(
      unsafe ckvm_cpuid_entries, [kvm_cpuid_entry2](), capacity: 256
    ) {
      unsafe ckvm_get_supported_cpuid(descriptor.number, $0)
    }
    try check("KVM_GET_SUPPORTED_CPUID", result)
    return CPUID(entries: entries)
  }

  /// The MSRs that this KVM can read and write. Corresponds to `KVM_GET_MSR_INDEX_LIST`.
  package func msrIndices() throws(KVMError) -> [UInt32] {
    let (result, indices) = unsafe withFlexibleArray(
      unsafe ckvm_msr_indices, [UInt32](), capacity: 2048
    ) {
      unsafe ckvm_get_msr_index_list(descriptor.number, $0)
    }
    try check("KVM_GET_MSR_INDEX_LIST", result)
    return indices
  }

  /// Makes a VM without memory or VCPUs.
  ///
  /// A signal that arrives meanwhile makes the kernel give up with `EINTR`; the call starts over.
  /// Corresponds to `KVM_CREATE_VM`.
  package func makeVM() throws(KVMError) -> VM {
    var number = ckvm_create_vm(descriptor.number, 0)
    while number < 0 && Errno.current == .interrupted {
      number = ckvm_create_vm(descriptor.number, 0)
    }
    try check("KVM_CREATE_VM", number)
    let mapSize = try check(
      "KVM_GET_VCPU_MMAP_SIZE", ckvm_get_vcpu_mmap_size(descriptor.number))
    return VM(FileDescriptor(owning: number), runMapSize: Int(mapSize))
  }
}
