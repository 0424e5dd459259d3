import CKVM

/// Something that a KVM may or may not be able to do. Corresponds to `KVM_CAP_*`.
package struct Capability: Hashable, Sendable {
  /// The number that `KVM_CHECK_EXTENSION` takes.
  package let number: Int32

  /// Wraps a number.
  package init(_ number: Int32) { self.number = number }

  /// Interrupt controllers in the kernel.
  package static let irqchip = Capability(KVM_CAP_IRQCHIP)
  /// `KVM_SET_USER_MEMORY_REGION`.
  package static let userMemory = Capability(KVM_CAP_USER_MEMORY)
  /// An interval timer in the kernel.
  package static let pit2 = Capability(KVM_CAP_PIT2)
  /// How many VCPUs a VM should have at most.
  package static let recommendedVCPUs = Capability(KVM_CAP_NR_VCPUS)
  /// How many VCPUs a VM can have at most.
  package static let maximumVCPUs = Capability(KVM_CAP_MAX_VCPUS)
  /// How many memory slots a VM can have.
  package static let memorySlots = Capability(KVM_CAP_NR_MEMSLOTS)
  /// Guests that only read a slot.
  package static let readOnlyMemory = Capability(KVM_CAP_READONLY_MEM)
  /// Interrupts raised by an eventfd.
  package static let irqfd = Capability(KVM_CAP_IRQFD)
  /// Writes of a guest that only raise an eventfd.
  package static let ioeventfd = Capability(KVM_CAP_IOEVENTFD)
  /// `immediate_exit`, by which a VCPU is kicked.
  package static let immediateExit = Capability(KVM_CAP_IMMEDIATE_EXIT)
  /// Registers in the shared page at each exit; the value is a mask of the groups.
  package static let syncRegisters = Capability(KVM_CAP_SYNC_REGS)
  /// Counters of the kernel's by `KVM_GET_STATS_FD`.
  package static let binaryStatistics = Capability(KVM_CAP_BINARY_STATS_FD)
  /// Single steps and breakpoints in a guest.
  package static let guestDebug = Capability(KVM_CAP_SET_GUEST_DEBUG)
  /// Interrupts by message.
  package static let signalMSI = Capability(KVM_CAP_SIGNAL_MSI)
  /// A routing table from GSIs to interrupts.
  package static let irqRouting = Capability(KVM_CAP_IRQ_ROUTING)
  /// A TSC at a frequency of the user's choice.
  package static let tscControl = Capability(KVM_CAP_TSC_CONTROL)
  /// A timer that fires at a value of the TSC, in the local APIC in the kernel.
  package static let tscDeadlineTimer = Capability(KVM_CAP_TSC_DEADLINE_TIMER)
  /// The state of a hypervisor inside the guest.
  package static let nestedState = Capability(KVM_CAP_NESTED_STATE)
  /// The dirty log as a ring.
  package static let dirtyRing = Capability(KVM_CAP_DIRTY_LOG_RING)
  /// A dirty log that is cleared by hand; the value is a mask of its variants.
  package static let manualDirtyLogProtect = Capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
  /// XSAVE areas of over 4 KiB; the value is the size in bytes.
  package static let xsave2 = Capability(KVM_CAP_XSAVE2)
  /// Extended control registers, such as XCR0.
  package static let extendedControlRegisters = Capability(KVM_CAP_XCRS)
  /// A paravirtual clock that can be set.
  package static let adjustClock = Capability(KVM_CAP_ADJUST_CLOCK)
  /// Writes of a guest that the kernel gathers.
  package static let coalescedMMIO = Capability(KVM_CAP_COALESCED_MMIO)
  /// A local APIC in the kernel with the other controllers in user space.
  package static let splitIRQChip = Capability(KVM_CAP_SPLIT_IRQCHIP)
  /// MSRs that exit to user space.
  package static let userSpaceMSR = Capability(KVM_CAP_X86_USER_SPACE_MSR)
  /// A full x2APIC.
  package static let x2apic = Capability(KVM_CAP_X2APIC_API)

  /// What no machine can do without, with its name in words.
  package static let required: [(capability: Capability, name: String)] = [
    (.userMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (.irqchip, "interrupt controllers in the kernel (KVM_CAP_IRQCHIP)"),
    (.pit2, "a timer in the kernel (KVM_CAP_PIT2)"),
    (.immediateExit, "immediate_exit, Linux 4.13 (KVM_CAP_IMMEDIATE_EXIT)"),
  ]
}
