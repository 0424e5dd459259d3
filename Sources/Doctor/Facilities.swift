import KVM

extension HostReport.Facility {
  /// Everything that is asked of a KVM, as `system` answers.
  static func all(of system: borrowing System) -> [Self] {
    var answers: [Self] = []
    for known in table {
      answers.append(
        Self(
          name: known.name, title: known.title, use: known.use,
          value: system.value(of: known.capability), isCount: known.isCount,
          isRequired: Capability.required.contains { $0.capability == known.capability },
          remedy: known.remedy))
    }
    return answers
  }

  private struct Known {
    let capability: Capability
    let name: String
    let title: String
    let use: String
    let isCount: Bool
    let remedy: String

    init(
      _ capability: Capability, _ name: String, _ title: String, _ use: String,
      isCount: Bool = false, remedy: String = "a newer Linux"
    ) {
      self.capability = capability
      self.name = name
      self.title = title
      self.use = use
      self.isCount = isCount
      self.remedy = remedy
    }
  }

  private static let scaling = "TSC scaling by the processor, under kvm_intel or kvm_amd"
  private static let nesting = "kvm_intel or kvm_amd with nested=1"

  private static let table: [Known] = [
    // Processors and memory
    Known(
      .recommendedVCPUs, "KVM_CAP_NR_VCPUS", "VCPUs, recommended", "more run, but share processors",
      isCount: true),
    Known(
      .maximumVCPUs, "KVM_CAP_MAX_VCPUS", "VCPUs, at most", "as many as one machine can have",
      isCount: true),
    Known(
      .userMemory, "KVM_CAP_USER_MEMORY", "memory slots", "RAM is ordinary memory of kvmlite's"),
    Known(
      .memorySlots, "KVM_CAP_NR_MEMSLOTS", "number of slots", "RAM, ROM and device memory",
      isCount: true),
    Known(
      .readOnlyMemory, "KVM_CAP_READONLY_MEM", "read-only memory",
      "ROMs; writes to them reach kvmlite"),
    Known(
      .manualDirtyLogProtect, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", "dirty log, cleared by hand",
      "which pages a guest wrote, with little to lock"),
    Known(
      .dirtyRing, "KVM_CAP_DIRTY_LOG_RING", "dirty ring", "the same, page by page",
      remedy: "Linux 5.11 or newer, and a processor with PML or a back end that offers it"),
    // Interrupts
    Known(
      .irqchip, "KVM_CAP_IRQCHIP", "interrupt controllers", "PIC, IOAPIC, local APICs in the kernel"
    ),
    Known(.pit2, "KVM_CAP_PIT2", "timer (PIT)", "an 8254 in the kernel: ticks without exits"),
    Known(
      .splitIRQChip, "KVM_CAP_SPLIT_IRQCHIP", "local APICs alone",
      "in the kernel, with the other controllers in user space"),
    Known(.x2apic, "KVM_CAP_X2APIC_API", "x2APIC", "APIC IDs above 255"),
    Known(.signalMSI, "KVM_CAP_SIGNAL_MSI", "MSI", "interrupts as messages, as of PCI devices"),
    Known(.irqRouting, "KVM_CAP_IRQ_ROUTING", "interrupt routing", "which line is which interrupt"),
    Known(.irqfd, "KVM_CAP_IRQFD", "irqfd", "other threads and processes raise interrupts"),
    Known(.ioeventfd, "KVM_CAP_IOEVENTFD", "ioeventfd", "doorbells without an exit to kvmlite"),
    Known(
      .coalescedMMIO, "KVM_CAP_COALESCED_MMIO", "coalesced MMIO", "one exit for many writes"),
    // Time
    Known(.adjustClock, "KVM_CAP_ADJUST_CLOCK", "guest clock", "its clock (kvmclock) can be set"),
    Known(
      .tscControl, "KVM_CAP_TSC_CONTROL", "TSC control", "a guest's TSC at another frequency",
      remedy: scaling),
    // Looking inside
    Known(
      .syncRegisters, "KVM_CAP_SYNC_REGS", "registers at exits",
      "RIP in traces and in accounts of crashes"),
    Known(
      .binaryStatistics, "KVM_CAP_BINARY_STATS_FD", "KVM's statistics",
      "in-kernel counts among the statistics; halts noticed cheaply", remedy: "Linux 5.14 or newer"),
    Known(.guestDebug, "KVM_CAP_SET_GUEST_DEBUG", "debugging", "breakpoints and single steps"),
    Known(
      .userSpaceMSR, "KVM_CAP_X86_USER_SPACE_MSR", "MSR exits", "a guest's MSR accesses seen",
      remedy: "Linux 5.10 or newer"),
    // Control and state
    Known(
      .immediateExit, "KVM_CAP_IMMEDIATE_EXIT", "immediate exit", "a VCPU stops whenever asked"),
    Known(
      .xsave2, "KVM_CAP_XSAVE2", "large vector state", "saving AMX and what comes after it",
      remedy: "Linux 5.17 or newer"),
    Known(
      .nestedState, "KVM_CAP_NESTED_STATE", "nested state",
      "saving a guest that is a hypervisor itself", remedy: nesting),
  ]
}
