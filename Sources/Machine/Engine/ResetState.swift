import CKVM
import KVM
import Memory

/// What KVM leaves to its user of the state that a processor has after a reset, and what firmware
/// leaves to a kernel.
extension VCPU {
  /// Sets up the machine-check banks and turns fast string operations on, without which Linux does
  /// without REP MOVSB (Intel SDM vol 4, IA32_MISC_ENABLE).
  func setUpModelSpecificRegisters() throws(KVMError) {
    try setUpMachineChecks(banks: 10)
    let present = try msrs([MSR.miscEnable]).first?.data ?? 0
    try setMSRs([kvm_msr_entry(MSR.miscEnable, present | 1)])
  }

  /// Says that RAM is cached and the hole below 4 GiB is not, on processors with physical addresses
  /// of `addressBits` bits. With the MTRRs off, as after a reset, Linux goes without PAT.
  func setUpMemoryTypes(addressBits: UInt64) throws(KVMError) {
    let (uncached, writeBack): (UInt64, UInt64) = (0, 6)
    let (valid, enabled): (UInt64, UInt64) = (1 << 11, 1 << 11)
    let addresses: UInt64 = (1 << min(max(addressBits, 36), 52)) - 1
    let holeMask = ~(GuestMemory.holeEnd - GuestMemory.holeStart - 1) & addresses
    try setMSRs([
      kvm_msr_entry(MSR.mtrrPhysicalBase0, GuestMemory.holeStart | uncached),
      kvm_msr_entry(MSR.mtrrPhysicalMask0, holeMask | valid),
      kvm_msr_entry(MSR.mtrrDefaultType, enabled | writeBack),
    ])
  }
}

/// Numbers of MSRs (Intel SDM vol 4, table 2-2; memory types in vol 3, 12.11).
private enum MSR {
  static let miscEnable: UInt32 = 0x1A0
  static let mtrrPhysicalBase0: UInt32 = 0x200
  static let mtrrPhysicalMask0: UInt32 = 0x201
  static let mtrrDefaultType: UInt32 = 0x2FF
}

extension kvm_msr_entry {
  fileprivate init(_ index: UInt32, _ data: UInt64) {
    self.init(index: index, reserved: 0, data: data)
  }
}
