import Host
import KVM

/// What this host can do for virtual machines: what `kvmlite doctor` tells.
package struct HostReport: Sendable {
  /// /dev/kvm as a file; nil if there is none.
  package let device: DeviceFile?
  /// What the kernel says of processor and modules.
  package let facts: HostFacts
  /// What serves /dev/kvm; nil where the kernel doesn't show it.
  package let backEnd: BackEnd?
  /// What this KVM can do; empty if it could not be asked.
  package let facilities: [Facility]
  /// Why no virtual machine can run here; nil if a small one was made.
  package let trouble: KVMTrouble?

  /// Something that a KVM may or may not do.
  package struct Facility: Sendable, Equatable {
    /// The kernel's name, such as `KVM_CAP_IRQFD`.
    package let name: String
    /// What it is.
    package let title: String
    /// What it's good for.
    package let use: String
    /// What KVM says: 0 for no, 1 or more for yes.
    package let value: Int
    /// Whether the value is a number of something.
    package let isCount: Bool
    /// Whether no machine can do without it.
    package let isRequired: Bool
    /// What would bring it, where it's missing.
    package let remedy: String

    /// Whether this KVM has it.
    package var isThere: Bool { value > 0 }
  }

  /// Looks at this host, and makes a small virtual machine to see whether that works.
  package static func make() -> HostReport {
    let facts = HostFacts.read()
    var facilities: [Facility] = []
    var trouble: KVMTrouble?
    do throws(KVMError) {
      let system = try System()
      let version = try system.version()
      facilities = Facility.all(of: system)
      if version != System.apiVersion {
        trouble = .tooOld("version \(System.apiVersion) of the KVM API (it has \(version))")
      } else if let missing = facilities.first(where: { $0.isRequired && !$0.isThere }) {
        trouble = .tooOld("\(missing.title) (\(missing.name))")
      } else {
        try makeSmallVM(system)
      }
    } catch { trouble = KVMTrouble(error) }
    return HostReport(
      device: DeviceFile.read(), facts: facts, backEnd: BackEnd.read(facts),
      facilities: facilities, trouble: trouble)
  }

  /// A busy processor shows in the making of a VM or of its VCPU, and nowhere before.
  private static func makeSmallVM(_ system: borrowing System) throws(KVMError) {
    let vm = try system.makeVM()
    try vm.makeIRQChip()
    try vm.makePIT()
    _ = try vm.makeVCPU(id: 0)
  }
}
