import CKVM

/// A structure of KVM's that is a part of a virtual machine's state, and can be kept as bytes.
///
/// All that conform are C structures of nothing but integers.
package protocol StateStructure {
  /// All zeros.
  init()
}

extension kvm_mp_state: StateStructure {}
extension kvm_regs: StateStructure {}
extension kvm_sregs: StateStructure {}
extension kvm_xcrs: StateStructure {}
extension kvm_debugregs: StateStructure {}
extension kvm_lapic_state: StateStructure {}
extension kvm_vcpu_events: StateStructure {}
extension kvm_irqchip: StateStructure {}
extension kvm_pit_state2: StateStructure {}

extension StateStructure {
  /// The structure as it is in memory, which is how the kernel's interface defines it.
  package var stateBytes: [UInt8] {
    // The structure's own bytes, read while it is there.
    unsafe withUnsafeBytes(of: self) { unsafe Array($0) }
  }

  /// The structure that has these bytes; nil if they are more or fewer than it has.
  package init?(stateBytes bytes: [UInt8]) {
    guard bytes.count == MemoryLayout<Self>.size else { return nil }
    self.init()
    // There are as many bytes as that, and any are integers. What they mean is for the kernel to judge.
    unsafe withUnsafeMutableBytes(of: &self) { unsafe $0.copyBytes(from: bytes) }
  }
}
