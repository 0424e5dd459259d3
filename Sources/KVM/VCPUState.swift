import CKVM
import Host

/// The general registers, RIP and RFLAGS. Corresponds to `struct kvm_regs`.
public typealias Registers = kvm_regs
/// Segments, control registers, descriptor tables and EFER. Corresponds to `struct kvm_sregs`.
public typealias SpecialRegisters = kvm_sregs
/// One segment register with its hidden part. Corresponds to `struct kvm_segment`.
package typealias Segment = kvm_segment

/// Bits of CR0, CR4 and EFER (Intel SDM vol 3, 2.5 and 2.2.1; AMD APM vol 2, 3.1.7).
package enum ControlBit {
  /// CR0.PE.
  package static let protection: UInt64 = 1 << 0
  /// CR0.NW.
  package static let notWriteThrough: UInt64 = 1 << 29
  /// CR0.CD.
  package static let cacheDisable: UInt64 = 1 << 30
  /// CR0.PG.
  package static let paging: UInt64 = 1 << 31
  /// CR4.PAE.
  package static let physicalAddressExtension: UInt64 = 1 << 5
  /// CR4.VMXE.
  package static let vmxEnable: UInt64 = 1 << 13
  /// EFER.LME.
  package static let longModeEnable: UInt64 = 1 << 8
  /// EFER.LMA.
  package static let longModeActive: UInt64 = 1 << 10
  /// EFER.SVME.
  package static let svmEnable: UInt64 = 1 << 12
}

/// What a VCPU waits for. Corresponds to `struct kvm_mp_state`.
package enum RunState: UInt32, Sendable {
  /// It runs.
  case runnable = 0
  /// It was never started: it waits for INIT.
  case uninitialized = 1
  /// It got INIT and waits for SIPI.
  case initReceived = 2
  /// It is halted and waits for an interrupt.
  case halted = 3
  /// It got SIPI and is about to run.
  case sipiReceived = 4
}

/// A VCPU's state, part by part: each method is one ioctl.
extension VCPU {
  /// Corresponds to `KVM_GET_REGS`.
  package func registers() throws(KVMError) -> Registers {
    try unsafe get("KVM_GET_REGS", descriptor.number, Registers(), ckvm_get_regs)
  }

  /// Corresponds to `KVM_SET_REGS`.
  package func setRegisters(_ registers: Registers) throws(KVMError) {
    try unsafe set("KVM_SET_REGS", descriptor.number, registers, ckvm_set_regs)
  }

  /// Corresponds to `KVM_GET_SREGS`.
  package func specialRegisters() throws(KVMError) -> SpecialRegisters {
    try unsafe get("KVM_GET_SREGS", descriptor.number, SpecialRegisters(), ckvm_get_sregs)
  }

  /// Corresponds to `KVM_SET_SREGS`.
  package func setSpecialRegisters(_ registers: SpecialRegisters) throws(KVMError) {
    try unsafe set("KVM_SET_SREGS", descriptor.number, registers, ckvm_set_sregs)
  }

  /// The XSAVE area; `size` is what `Capability.xsave2` says, at least 4096 bytes.
  ///
  /// Corresponds to `KVM_GET_XSAVE2`.
  package func xsave(size: Int) throws(KVMError) -> [UInt8] {
    var area = [UInt8](repeating: 0, count: max(size, 4096))
    // The kernel fills as many bytes as it says for KVM_CAP_XSAVE2.
    let result = unsafe area.withUnsafeMutableBytes { buffer in
      unsafe ckvm_get_xsave2(
        descriptor.number, buffer.baseAddress?.assumingMemoryBound(to: kvm_xsave.self))
    }
    try check("KVM_GET_XSAVE2", result)
    return area
  }

  /// Sets it from what `xsave(size:)` gave. Corresponds to `KVM_SET_XSAVE`.
  package func setXSAVE(_ area: [UInt8]) throws(KVMError) {
    guard area.count >= 4096 else { throw KVMError("KVM_SET_XSAVE", .invalidArgument) }
    // The kernel reads as many bytes as it says for KVM_CAP_XSAVE2, which is what it filled.
    let result = unsafe area.withUnsafeBytes { buffer in
      unsafe ckvm_set_xsave(
        descriptor.number, buffer.baseAddress?.assumingMemoryBound(to: kvm_xsave.self))
    }
    try check("KVM_SET_XSAVE", result)
  }

  /// Corresponds to `KVM_GET_XCRS`.
  package func extendedControlRegisters() throws(KVMError) -> kvm_xcrs {
    try unsafe get("KVM_GET_XCRS", descriptor.number, kvm_xcrs(), ckvm_get_xcrs)
  }

  /// Corresponds to `KVM_SET_XCRS`.
  package func setExtendedControlRegisters(_ state: kvm_xcrs) throws(KVMError) {
    try unsafe set("KVM_SET_XCRS", descriptor.number, state, ckvm_set_xcrs)
  }

  /// The MSRs of `indices`; KVM stops at the first that it can't read, so fewer may come back.
  ///
  /// Corresponds to `KVM_GET_MSRS`.
  package func msrs(_ indices: [UInt32]) throws(KVMError) -> [kvm_msr_entry] {
    let entries = indices.map { kvm_msr_entry(index: $0, reserved: 0, data: 0) }
    let (result, values) = unsafe withFlexibleArray(unsafe ckvm_msr_entries, entries) {
      unsafe ckvm_get_msrs(descriptor.number, $0)
    }
    let count = try check("KVM_GET_MSRS", result)
    return Array(values.prefix(Int(count)))
  }

  /// Sets MSRs in order and returns how many were set: KVM stops at the first that it refuses.
  ///
  /// Corresponds to `KVM_SET_MSRS`.
  @discardableResult
  package func setMSRs(_ entries: [kvm_msr_entry]) throws(KVMError) -> Int {
    let (result, _) = unsafe withFlexibleArray(unsafe ckvm_msr_entries, entries) {
      unsafe ckvm_set_msrs(descriptor.number, $0)
    }
    return try Int(check("KVM_SET_MSRS", result))
  }

  /// Those of the MSRs `indices` that can be read.
  package func readableMSRs(_ indices: [UInt32]) throws(KVMError) -> [kvm_msr_entry] {
    var entries: [kvm_msr_entry] = []
    var rest = indices[...]
    while !rest.isEmpty {
      let read = try msrs(Array(rest))
      entries += read
      // KVM has stopped at the next one.
      rest = rest.dropFirst(read.count + 1)
    }
    return entries
  }

  /// Gives the VCPU so many machine-check banks, and the register that turns them on, MCG_CTL.
  ///
  /// Corresponds to `KVM_X86_SETUP_MCE`.
  package func setUpMachineChecks(banks: UInt8) throws(KVMError) {
    // IA32_MCG_CAP (Intel SDM vol 3, 16.3.1.1): the banks' number, and MCG_CTL_P.
    var capability = UInt64(banks) | 1 << 8
    try check("KVM_X86_SETUP_MCE", unsafe ckvm_x86_setup_mce(descriptor.number, &capability))
  }

  /// What CPUID answers on this VCPU; before its first run. Corresponds to `KVM_SET_CPUID2`.
  package func setCPUID(_ cpuid: CPUID) throws(KVMError) {
    let (result, _) = unsafe withFlexibleArray(unsafe ckvm_cpuid_entries, cpuid.entries) {
      unsafe ckvm_set_cpuid2(descriptor.number, $0)
    }
    try check("KVM_SET_CPUID2", result)
  }

  /// The local APIC's registers. Corresponds to `KVM_GET_LAPIC`.
  package func localAPIC() throws(KVMError) -> kvm_lapic_state {
    try unsafe get("KVM_GET_LAPIC", descriptor.number, kvm_lapic_state(), ckvm_get_lapic)
  }

  /// The local APIC's register at `offset` of its page, such as 0x350 for LVT LINT0.
  package func localAPICRegister(_ offset: UInt32) throws(KVMError) -> UInt32 {
    var state = try localAPIC()
    // The shim reads inside the structure whatever the offset.
    return unsafe ckvm_lapic_register(&state, offset)
  }

  /// Sets them. Corresponds to `KVM_SET_LAPIC`.
  package func setLocalAPIC(_ state: kvm_lapic_state) throws(KVMError) {
    try unsafe set("KVM_SET_LAPIC", descriptor.number, state, ckvm_set_lapic)
  }

  /// The same as the kernel says it. Corresponds to `KVM_GET_MP_STATE`.
  package func multiprocessorState() throws(KVMError) -> kvm_mp_state {
    try unsafe get("KVM_GET_MP_STATE", descriptor.number, kvm_mp_state(), ckvm_get_mp_state)
  }

  /// Sets it. Corresponds to `KVM_SET_MP_STATE`.
  package func setMultiprocessorState(_ state: kvm_mp_state) throws(KVMError) {
    try unsafe set("KVM_SET_MP_STATE", descriptor.number, state, ckvm_set_mp_state)
  }

  /// What the VCPU waits for. Corresponds to `KVM_GET_MP_STATE`.
  package func runState() throws(KVMError) -> RunState {
    try RunState(rawValue: multiprocessorState().mp_state) ?? .runnable
  }

  /// Sets it. Corresponds to `KVM_SET_MP_STATE`.
  package func setRunState(_ state: RunState) throws(KVMError) {
    try setMultiprocessorState(kvm_mp_state(mp_state: state.rawValue))
  }

  /// Exceptions, interrupts, NMIs and SMIs under way. Corresponds to `KVM_GET_VCPU_EVENTS`.
  package func events() throws(KVMError) -> kvm_vcpu_events {
    try unsafe get(
      "KVM_GET_VCPU_EVENTS", descriptor.number, kvm_vcpu_events(), ckvm_get_vcpu_events)
  }

  /// Sets them. Corresponds to `KVM_SET_VCPU_EVENTS`.
  package func setEvents(_ events: kvm_vcpu_events) throws(KVMError) {
    try unsafe set("KVM_SET_VCPU_EVENTS", descriptor.number, events, ckvm_set_vcpu_events)
  }

  /// Corresponds to `KVM_GET_DEBUGREGS`.
  package func debugRegisters() throws(KVMError) -> kvm_debugregs {
    try unsafe get("KVM_GET_DEBUGREGS", descriptor.number, kvm_debugregs(), ckvm_get_debugregs)
  }

  /// Corresponds to `KVM_SET_DEBUGREGS`.
  package func setDebugRegisters(_ registers: kvm_debugregs) throws(KVMError) {
    try unsafe set("KVM_SET_DEBUGREGS", descriptor.number, registers, ckvm_set_debugregs)
  }

  /// Single steps and breakpoints. Corresponds to `KVM_SET_GUEST_DEBUG`.
  package func setGuestDebug(_ debug: kvm_guest_debug) throws(KVMError) {
    try unsafe set("KVM_SET_GUEST_DEBUG", descriptor.number, debug, ckvm_set_guest_debug)
  }

  /// What the guest's own tables make of the linear address `address` now.
  ///
  /// Sets accessed bits in them. Corresponds to `KVM_TRANSLATE`.
  package func translate(_ address: UInt64) throws(KVMError) -> kvm_translation {
    var translation = kvm_translation()
    translation.linear_address = address
    return try unsafe get("KVM_TRANSLATE", descriptor.number, translation, ckvm_translate)
  }

  /// Queues an external interrupt, where no interrupt controller is in the kernel.
  ///
  /// Corresponds to `KVM_INTERRUPT`.
  package func interrupt(vector: UInt32) throws(KVMError) {
    try unsafe set(
      "KVM_INTERRUPT", descriptor.number, kvm_interrupt(irq: vector), ckvm_interrupt)
  }

  /// Sends a non-maskable interrupt. Corresponds to `KVM_NMI`.
  package func sendNMI() throws(KVMError) {
    try check("KVM_NMI", ckvm_nmi(descriptor.number))
  }
}
