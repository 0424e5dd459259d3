import CKVM

/// Why `KVM_RUN` came back. All cases are plain numbers: reading one allocates nothing.
///
/// Corresponds to `exit_reason` of `struct kvm_run`.
package enum Exit: Sendable {
  /// IN, OUT, INS or OUTS (`KVM_EXIT_IO`). The data is in the VCPU's shared page.
  case portIO(PortIO)
  /// An access to an address without memory, or a write to ROM (`KVM_EXIT_MMIO`).
  case mmio(MMIO)
  /// A signal or `immediate_exit` came (`EINTR`, `EAGAIN`, `KVM_EXIT_INTR`): nothing is wrong.
  case interrupted
  /// HLT, where no interrupt controller is in the kernel (`KVM_EXIT_HLT`).
  case halt
  /// A triple fault (`KVM_EXIT_SHUTDOWN`).
  case shutdown
  /// The guest can take an interrupt now (`KVM_EXIT_IRQ_WINDOW_OPEN`).
  case interruptWindow
  /// A breakpoint or a single step (`KVM_EXIT_DEBUG`).
  case debug
  /// A reset or power-off through a paravirtual interface (`KVM_EXIT_SYSTEM_EVENT`).
  case systemEvent(UInt32)
  /// The processor refused to enter the guest; its own reason (`KVM_EXIT_FAIL_ENTRY`).
  case failedEntry(hardwareReason: UInt64)
  /// KVM could not go on; `suberror` says with what (`KVM_EXIT_INTERNAL_ERROR`).
  case internalError(suberror: UInt32)
  /// An access to memory that the host could not provide (`KVM_EXIT_MEMORY_FAULT`).
  case memoryFault
  /// RDMSR or WRMSR of an MSR that KVM refused, where `Capability.userSpaceMSR` was enabled
  /// (`KVM_EXIT_X86_RDMSR`, `KVM_EXIT_X86_WRMSR`).
  case msrAccess(index: UInt32, isWrite: Bool)
  /// Any other reason, by number: see `ExitReason`.
  case other(ExitReason)

  /// One port-I/O exit.
  package struct PortIO: Sendable {
    /// The port.
    package let port: UInt16
    /// Bytes in one access: 1, 2 or 4.
    package let width: Int
    /// Whether the guest writes (OUT).
    package let isWrite: Bool
    /// How many accesses to that one port a repeated instruction makes; 1 otherwise.
    package let count: Int
    // Where the data is in the shared page; checked to be inside with all of it.
    let dataOffset: Int
  }

  /// One MMIO exit.
  package struct MMIO: Sendable {
    /// The guest-physical address.
    package let address: UInt64
    /// Bytes in the access: 1 to 8; odd numbers occur where an access straddles two pages.
    package let width: Int
    /// Whether the guest writes.
    package let isWrite: Bool
    /// What it writes, little-endian.
    package let data: UInt64
  }

  /// The reason, as KVM numbers it.
  package var reason: ExitReason {
    switch self {
    case .portIO: ExitReason(UInt32(KVM_EXIT_IO))
    case .mmio: ExitReason(UInt32(KVM_EXIT_MMIO))
    case .interrupted: ExitReason(UInt32(KVM_EXIT_INTR))
    case .halt: ExitReason(UInt32(KVM_EXIT_HLT))
    case .shutdown: ExitReason(UInt32(KVM_EXIT_SHUTDOWN))
    case .interruptWindow: ExitReason(UInt32(KVM_EXIT_IRQ_WINDOW_OPEN))
    case .debug: ExitReason(UInt32(KVM_EXIT_DEBUG))
    case .systemEvent: ExitReason(UInt32(KVM_EXIT_SYSTEM_EVENT))
    case .failedEntry: ExitReason(UInt32(KVM_EXIT_FAIL_ENTRY))
    case .internalError: ExitReason(UInt32(KVM_EXIT_INTERNAL_ERROR))
    case .memoryFault: ExitReason.memoryFault
    case .msrAccess(_, let isWrite):
      ExitReason(UInt32(isWrite ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR))
    case .other(let reason): reason
    }
  }
}

/// The number that KVM gives an exit, with its name and what it means.
package struct ExitReason: Hashable, Sendable {
  /// The value of `exit_reason`.
  package let number: UInt32

  /// Wraps a number.
  package init(_ number: UInt32) { self.number = number }

  // Newer than the headers of Debian 12.
  static let memoryFault = ExitReason(39)

  /// Every reason of Linux 6.18 that can occur on x86, by number; nil where there is none.
  ///
  /// Corresponds to the `KVM_EXIT_*` constants.
  private static let table: [UInt32: (name: String, meaning: String)] = [
    0: ("UNKNOWN", "the processor left the guest for a reason that KVM doesn't know"),
    1: ("EXCEPTION", "an exception that KVM passes on"),
    2: ("IO", "port I/O"),
    3: ("HYPERCALL", "a hypercall that KVM passes on"),
    4: ("DEBUG", "a breakpoint or a single step"),
    5: ("HLT", "the guest halted"),
    6: ("MMIO", "an access to an address without memory"),
    7: ("IRQ_WINDOW_OPEN", "the guest can take an interrupt now"),
    8: ("SHUTDOWN", "a triple fault"),
    9: ("FAIL_ENTRY", "the processor refused to enter the guest"),
    10: ("INTR", "a signal for kvmlite"),
    11: ("SET_TPR", "the guest changed its task priority"),
    12: ("TPR_ACCESS", "the guest used its task priority register"),
    16: ("NMI", "a non-maskable interrupt of the host's"),
    17: ("INTERNAL_ERROR", "KVM could not go on"),
    24: ("SYSTEM_EVENT", "a reset or power-off through a paravirtual interface"),
    26: ("IOAPIC_EOI", "an end of interrupt, for an IOAPIC in user space"),
    27: ("HYPERV", "a Hyper-V interface"),
    29: ("X86_RDMSR", "a read of an MSR that kvmlite asked to see"),
    30: ("X86_WRMSR", "a write of an MSR that kvmlite asked to see"),
    31: ("DIRTY_RING_FULL", "the ring of dirty pages is full"),
    32: ("AP_RESET_HOLD", "a VCPU of an encrypted guest waits for its start"),
    33: ("X86_BUS_LOCK", "the guest locked the bus"),
    34: ("XEN", "a Xen interface"),
    37: ("NOTIFY", "the guest ran too long without an interrupt window"),
    39: ("MEMORY_FAULT", "an access to memory that the host could not provide"),
    40: ("TDX", "a service for a guest under Intel TDX"),
  ]

  /// Every reason that kvmlite knows by name, by rising number.
  package static var all: [ExitReason] { table.keys.sorted().map(ExitReason.init) }

  /// The name as KVM spells it, such as `KVM_EXIT_IO`.
  package var name: String {
    Self.table[number].map { "KVM_EXIT_" + $0.name } ?? "exit reason \(number)"
  }

  /// What it means, in a few words.
  package var meaning: String {
    Self.table[number]?.meaning ?? "a reason that this version of kvmlite doesn't know"
  }
}

/// Which refused accesses to MSRs come to user space.
package enum MSRExit {
  /// What `Capability.userSpaceMSR` takes for those that KVM doesn't know or finds invalid.
  package static let mask = UInt64(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN)
  /// The x2APIC's registers (Intel SDM vol 3, 11.12.1.2).
  package static let x2APIC: ClosedRange<UInt32> = 0x800...0x8FF
}
