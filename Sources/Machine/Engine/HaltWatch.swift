import KVM

/// Finds out when a guest has halted for good: every VCPU in HLT with interrupts off, or never
/// started.
///
/// With the interrupt controllers in the kernel a halted VCPU stays in `KVM_RUN`, so somebody has to
/// look. Looking is cheap: KVM's counters say without disturbing a VCPU whether it waits. Only when
/// all do, and have run since they were last stopped for this, are they stopped for a moment and their
/// flags read; in a machine that has run for a while only if they have slept from one look to the next,
/// so that one which ticks is left alone.
final class HaltWatch {
  private let vcpus: [VCPU]
  private let counters: [Counters?]
  private var lastSeenWaiting: [UInt64]?
  private var lastSums: [UInt64] = []
  private var sleepsOn = false
  private var delay = HaltWatch.shortestDelay

  /// The first look comes after this many nanoseconds: a small guest is done by then.
  private static let shortestDelay: UInt64 = 100_000
  /// Looks become rarer up to this many nanoseconds, so that an end is seen within 100 to 150 ms.
  private static let longDelay: UInt64 = 50_000_000
  /// The same while a guest sleeps that has not stirred since it was found to.
  private static let longestDelay: UInt64 = 1_000_000_000

  // Which of KVM's counters tell that a VCPU waits, and that it has run since.
  private struct Counters {
    let statistics: Statistics
    let blocking: Statistics.Counter
    let progress: [Statistics.Counter]

    init?(_ vcpu: VCPU) {
      guard let statistics = try? vcpu.statistics(), let blocking = statistics.counter("blocking")
      else { return nil }
      self.statistics = statistics
      self.blocking = blocking
      progress = ["exits", "halt_exits", "halt_wakeup", "irq_injections", "insn_emulation"]
        .compactMap(statistics.counter)
    }

    var isWaiting: Bool { (try? statistics.value(of: blocking)) == 1 }

    var sum: UInt64 {
      progress.reduce(0) { $0 &+ ((try? statistics.value(of: $1)) ?? 0) }
    }
  }

  init(_ vcpus: [VCPU]) {
    self.vcpus = vcpus
    counters = vcpus.map(Counters.init)
  }

  /// Nanoseconds until the next look: so much that an end is seen after an eighth of the time.
  func nextDelay() -> UInt64 {
    defer { delay = min(delay + delay / 8, sleepsOn ? Self.longestDelay : Self.longDelay) }
    return delay
  }

  /// Whether it is worth stopping the VCPUs to look closer.
  func mayHaveHalted() -> Bool {
    var sums: [UInt64] = []
    sleepsOn = false
    for counters in counters {
      guard let counters else { return true }
      guard counters.isWaiting else { return false }
      sums.append(counters.sum)
    }
    defer { lastSums = sums }
    sleepsOn = sums == lastSeenWaiting
    return !sleepsOn && (delay < Self.longDelay || sums == lastSums)
  }

  /// With all VCPUs stopped: whether nothing can wake any of them.
  func hasHalted(_ vm: VM) throws(KVMError) -> Bool {
    var isAsleep = try !vm.mayDeliverNMI()
    if try vcpus[0].takesNMIFromPIT() { isAsleep = false }
    for vcpu in vcpus where try !vcpu.sleepsForGood() { isAsleep = false }
    // A look that failed is taken again, though the guest doesn't stir.
    lastSeenWaiting = counters.map { $0?.sum ?? 0 }
    return isAsleep
  }
}

extension VCPU {
  /// Whether no maskable interrupt can end this VCPU's wait.
  fileprivate func sleepsForGood() throws(KVMError) -> Bool {
    switch try runState() {
    case .uninitialized, .initReceived: return true
    case .halted:
      // The flags may be those of a guest of the guest's own, which other rules wake.
      guard try !isHypervisor() else { return false }
      let pending = try events()
      // Bit 9 is IF.
      let flags = try registers().rflags
      return flags & (1 << 9) == 0 && pending.nmi.pending == 0 && pending.smi.pending == 0
    case .runnable, .sipiReceived: return false
    }
  }

  /// Whether the guest has turned on virtualization: such bits must stay set in a guest of its own
  /// (AMD APM vol 2, 15.5.1; Intel SDM vol 3, A.8).
  private func isHypervisor() throws(KVMError) -> Bool {
    let special = try specialRegisters()
    return special.efer & ControlBit.svmEnable != 0 || special.cr4 & ControlBit.vmxEnable != 0
  }

  /// Whether the local APIC's LINT0 takes the timer's interrupt as an NMI, as NMI watchdogs set up.
  ///
  /// Intel SDM vol 3, 11.5.1: LVT LINT0 is at 0x350; bits 10:8 are the delivery mode, 16 the mask.
  fileprivate func takesNMIFromPIT() throws(KVMError) -> Bool {
    let entry = try localAPICRegister(0x350)
    return entry & (1 << 16) == 0 && entry >> 8 & 7 == DeliveryMode.nmi
  }
}

extension VM {
  /// Whether an input of the IOAPIC would wake a VCPU whatever its flags.
  ///
  /// Intel 82093AA, 3.2.4: bits 10:8 are the delivery mode, 16 the mask.
  fileprivate func mayDeliverNMI() throws(KVMError) -> Bool {
    let entries = try ioapicRedirections()
    return entries.contains { entry in
      let mode = UInt32(entry >> 8 & 7)
      return entry & (1 << 16) == 0
        && (mode == DeliveryMode.nmi || mode == DeliveryMode.smi || mode == DeliveryMode.initialize)
    }
  }
}

/// Delivery modes of interrupts that IF doesn't block (Intel SDM vol 3, 11.5.1).
private enum DeliveryMode {
  static let smi: UInt32 = 2
  static let nmi: UInt32 = 4
  static let initialize: UInt32 = 5
}
