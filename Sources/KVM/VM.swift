import CKVM
import Host
import Memory

/// A virtual machine of KVM's: its memory slots, interrupt controllers and VCPUs.
///
/// Every method is one ioctl and may be called from any thread.
package final class VM: Sendable {
  // Goes before the hold on it.
  let descriptor: FileDescriptor
  private let lateClose = RankedMutex<LateClose?>(.last, nil)
  private let runMapSize: Int

  init(_ descriptor: consuming FileDescriptor, runMapSize: Int) {
    self.descriptor = descriptor
    self.runMapSize = runMapSize
  }

  /// Spares whoever closes this VM the wait that its interrupt controllers make: see `LateClose`.
  /// To be called once it has all its VCPUs.
  package func closeLate() { lateClose.withLock { $0 = .make(descriptor) } }

  // MARK: VCPUs

  /// Makes the VCPU whose APIC ID is `id`. Corresponds to `KVM_CREATE_VCPU`.
  package func makeVCPU(id: Int) throws(KVMError) -> VCPU {
    let number = try check("KVM_CREATE_VCPU", ckvm_create_vcpu(descriptor.number, UInt(id)))
    let descriptor = FileDescriptor(owning: number)
    do {
      let page = try Mapping(sharing: descriptor, count: runMapSize)
      return VCPU(descriptor, page, id: id, of: self)
    } catch {
      throw KVMError("mmap of a VCPU", error)
    }
  }

  /// Where KVM keeps three pages that real mode needs on older Intel processors.
  ///
  /// Corresponds to `KVM_SET_TSS_ADDR`.
  package func setTSSAddress(_ address: GuestAddress) throws(KVMError) {
    try check("KVM_SET_TSS_ADDR", ckvm_set_tss_addr(descriptor.number, UInt(address.value)))
  }

  /// Where KVM keeps one page for unpaged mode on the same processors.
  ///
  /// Corresponds to `KVM_SET_IDENTITY_MAP_ADDR`.
  package func setIdentityMapAddress(_ address: GuestAddress) throws(KVMError) {
    var value = address.value
    try check(
      "KVM_SET_IDENTITY_MAP_ADDR", unsafe ckvm_set_identity_map_addr(descriptor.number, &value))
  }

  /// Turns on what must be asked for. Corresponds to `KVM_ENABLE_CAP` on a VM.
  package func enable(_ capability: Capability, _ argument: UInt64 = 0) throws(KVMError) {
    var request = kvm_enable_cap()
    request.cap = UInt32(capability.number)
    request.args.0 = argument
    try check("KVM_ENABLE_CAP", unsafe ckvm_enable_cap(descriptor.number, &request))
  }

  // MARK: Memory

  /// Gives the guest `region`, or the `part` of it by offsets that are multiples of 4096, as memory
  /// slot `slot`. Corresponds to `KVM_SET_USER_MEMORY_REGION`.
  ///
  /// The region's mapping must outlive the VM; `Machine` holds both.
  package func setMemory(
    slot: UInt32, _ region: GuestMemory.Region, part: Range<UInt64>? = nil,
    logsDirtyPages: Bool = false
  ) throws(KVMError) {
    let part = (part ?? 0..<region.count).clamped(to: 0..<region.count)
    var request = kvm_userspace_memory_region()
    request.slot = slot
    request.flags =
      (region.kind == .rom ? UInt32(KVM_MEM_READONLY) : 0)
      | (logsDirtyPages ? UInt32(KVM_MEM_LOG_DIRTY_PAGES) : 0)
    request.guest_phys_addr = region.start.value + part.lowerBound
    request.memory_size = part.upperBound - part.lowerBound
    // The kernel keeps the number, not a reference: see above for who keeps the memory. The part is
    // within the mapping.
    request.userspace_addr =
      unsafe UInt64(UInt(bitPattern: region.mapping.base)) + part.lowerBound
    try check(
      "KVM_SET_USER_MEMORY_REGION",
      unsafe ckvm_set_user_memory_region(descriptor.number, &request))
  }

  /// Takes memory slot `slot` away from the guest.
  package func removeMemory(slot: UInt32) throws(KVMError) {
    var request = kvm_userspace_memory_region()
    request.slot = slot
    try check(
      "KVM_SET_USER_MEMORY_REGION",
      unsafe ckvm_set_user_memory_region(descriptor.number, &request))
  }

  /// One bit for each of the slot's `pages` pages that the guest wrote since the last call.
  ///
  /// Corresponds to `KVM_GET_DIRTY_LOG`.
  package func dirtyLog(slot: UInt32, pages: Int) throws(KVMError) -> [UInt64] {
    var bitmap = [UInt64](repeating: 0, count: (pages + 63) / 64)
    // The kernel fills one bit a page of the slot, rounded up to 64.
    let result = unsafe bitmap.withUnsafeMutableBufferPointer {
      unsafe ckvm_get_dirty_log(descriptor.number, slot, $0.baseAddress)
    }
    try check("KVM_GET_DIRTY_LOG", result)
    return bitmap
  }

  /// Forgets that the guest wrote the pages of `bitmap`, whose first bit is page `firstPage`.
  ///
  /// Needs `Capability.manualDirtyLogProtect`. Corresponds to `KVM_CLEAR_DIRTY_LOG`.
  package func clearDirtyLog(
    slot: UInt32, firstPage: UInt64, pages: UInt32, bitmap: [UInt64]
  ) throws(KVMError) {
    guard bitmap.count * 64 >= Int(pages) else {
      throw KVMError("KVM_CLEAR_DIRTY_LOG", .invalidArgument)
    }
    var bitmap = bitmap
    // The kernel only reads one bit a page.
    let result = unsafe bitmap.withUnsafeMutableBufferPointer {
      unsafe ckvm_clear_dirty_log(descriptor.number, slot, firstPage, pages, $0.baseAddress)
    }
    try check("KVM_CLEAR_DIRTY_LOG", result)
  }

  // MARK: Clock and counters

  /// The paravirtual clock in nanoseconds. Corresponds to `KVM_GET_CLOCK`.
  package func clock() throws(KVMError) -> kvm_clock_data {
    try unsafe get("KVM_GET_CLOCK", descriptor.number, kvm_clock_data(), ckvm_get_clock)
  }

  /// Sets it. Corresponds to `KVM_SET_CLOCK`.
  package func setClock(_ data: kvm_clock_data) throws(KVMError) {
    try unsafe set("KVM_SET_CLOCK", descriptor.number, data, ckvm_set_clock)
  }

  /// The kernel's counters of this VM. Corresponds to `KVM_GET_STATS_FD`.
  package func statistics() throws(KVMError) -> Statistics {
    try Statistics(check("KVM_GET_STATS_FD", ckvm_get_stats_fd(descriptor.number)), of: self)
  }
}
