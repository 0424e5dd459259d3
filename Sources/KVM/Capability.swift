import CKVM

/// Something that a KVM may or may not be able to do. Corresponds to `KVM_CAP_*`.
public struct Capability: Hashable, Sendable {
  /// The number that `KVM_CHECK_EXTENSION` takes.
  public let number: Int32

  /// Wraps a number.
  public init(_ number: Int32) { self.number = number }

  /// Interrupt controllers in the kernel.
  public static let irqchip = Capability(KVM_CAP_IRQCHIP)
  /// `KVM_SET_USER_MEMORY_REGION`.
  public static let userMemory = Capability(KVM_CAP_USER_MEMORY)
  /// An interval timer in the kernel.
  public static let pit2 = Capability(KVM_CAP_PIT2)
  /// How many VCPUs a VM should have at most.
  public static let recommendedVCPUs = Capability(KVM_CAP_NR_VCPUS)
  /// How many VCPUs a VM can have at most.
  public static let maximumVCPUs = Capability(KVM_CAP_MAX_VCPUS)
  /// How many memory slots a VM can have.
  public static let memorySlots = Capability(KVM_CAP_NR_MEMSLOTS)
  /// Guests that only read a slot.
  public static let readOnlyMemory = Capability(KVM_CAP_READONLY_MEM)
  /// Interrupts raised by an eventfd.
  public static let irqfd = Capability(KVM_CAP_IRQFD)
  /// Writes of a guest that only raise an eventfd.
  public static let ioeventfd = Capability(KVM_CAP_IOEVENTFD)
  /// `immediate_exit`, by which a VCPU is kicked.
  public static let immediateExit = Capability(KVM_CAP_IMMEDIATE_EXIT)
  /// Registers in the shared page at each exit; the value is a mask of the groups.
  public static let syncRegisters = Capability(KVM_CAP_SYNC_REGS)
  /// Counters of the kernel's by `KVM_GET_STATS_FD`.
  public static let binaryStatistics = Capability(KVM_CAP_BINARY_STATS_FD)
  /// Single steps and breakpoints in a guest.
  public static let guestDebug = Capability(KVM_CAP_SET_GUEST_DEBUG)
  /// Interrupts by message.
  public static let signalMSI = Capability(KVM_CAP_SIGNAL_MSI)
  /// A routing table from GSIs to interrupts.
  public static let irqRouting = Capability(KVM_CAP_IRQ_ROUTING)
  /// A TSC at a frequency of the user's choice.
  public static let tscControl = Capability(KVM_CAP_TSC_CONTROL)
  /// A timer that fires at a value of the TSC, in the local APIC in the kernel.
  public static let tscDeadlineTimer = Capability(KVM_CAP_TSC_DEADLINE_TIMER)
  /// The state of a hypervisor inside the guest.
  public static let nestedState = Capability(KVM_CAP_NESTED_STATE)
  /// The dirty log as a ring.
  public static let dirtyRing = Capability(KVM_CAP_DIRTY_LOG_RING)
  /// A dirty log that is cleared by hand; the value is a mask of its variants.
  public static let manualDirtyLogProtect = Capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
  /// XSAVE areas of over 4 KiB; the value is the size in bytes.
  public static let xsave2 = Capability(KVM_CAP_XSAVE2)
  /// Extended control registers, such as XCR0.
  package static let extendedControlRegisters = Capability(KVM_CAP_XCRS)
  /// A paravirtual clock that can be set.
  public static let adjustClock = Capability(KVM_CAP_ADJUST_CLOCK)
  /// Writes of a guest that the kernel gathers.
  public static let coalescedMMIO = Capability(KVM_CAP_COALESCED_MMIO)
  /// The same for ports.
  public static let coalescedPIO = Capability(KVM_CAP_COALESCED_PIO)
  /// A local APIC in the kernel with the other controllers in user space.
  public static let splitIRQChip = Capability(KVM_CAP_SPLIT_IRQCHIP)
  /// MSRs that exit to user space.
  public static let userSpaceMSR = Capability(KVM_CAP_X86_USER_SPACE_MSR)
  /// A full x2APIC.
  public static let x2apic = Capability(KVM_CAP_X2APIC_API)

  /// What no machine can do without, with its name in words.
  public static let required: [(capability: Capability, name: String)] = [
    (.userMemory, "memory slots (KVM_CAP_USER_MEMORY)"),
    (.irqchip, "interrupt controllers in the kernel (KVM_CAP_IRQCHIP)"),
    (.pit2, "a timer in the kernel (KVM_CAP_PIT2)"),
    (.immediateExit, "immediate_exit, Linux 4.13 (KVM_CAP_IMMEDIATE_EXIT)"),
  ]
}
