import CKVM
import Host
import Memory

/// Interrupt controllers, interrupt lines and messages, and their eventfds.
extension VM {
  /// Makes two 8259s, one IOAPIC and a local APIC for each VCPU made later, all in the kernel.
  ///
  /// Corresponds to `KVM_CREATE_IRQCHIP`.
  package func makeIRQChip() throws(KVMError) {
    try check("KVM_CREATE_IRQCHIP", ckvm_create_irqchip(descriptor.number))
  }

  /// Makes an 8254 in the kernel at ports 0x40 to 0x43, with port 0x61. Needs the IRQ chip.
  ///
  /// Corresponds to `KVM_CREATE_PIT2`.
  package func makePIT() throws(KVMError) {
    var configuration = kvm_pit_config()
    configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
    try check("KVM_CREATE_PIT2", unsafe ckvm_create_pit2(descriptor.number, &configuration))
  }

  /// Raises or lowers the interrupt input `gsi`. Corresponds to `KVM_IRQ_LINE`.
  package func setIRQLine(_ gsi: UInt32, _ isRaised: Bool) throws(KVMError) {
    var level = kvm_irq_level()
    level.irq = gsi
    level.level = isRaised ? 1 : 0
    try check("KVM_IRQ_LINE", unsafe ckvm_irq_line(descriptor.number, &level))
  }

  /// Sends a message-signalled interrupt. Corresponds to `KVM_SIGNAL_MSI`.
  ///
  /// Returns whether a VCPU took it; false means that the guest blocked it.
  @discardableResult
  package func signalMSI(address: UInt64, data: UInt32) throws(KVMError) -> Bool {
    var message = kvm_msi()
    message.address_lo = UInt32(truncatingIfNeeded: address)
    message.address_hi = UInt32(truncatingIfNeeded: address >> 32)
    message.data = data
    return try check("KVM_SIGNAL_MSI", unsafe ckvm_signal_msi(descriptor.number, &message)) > 0
  }

  /// The state of one controller: 0 and 1 are the 8259s, 2 is the IOAPIC.
  ///
  /// Corresponds to `KVM_GET_IRQCHIP`.
  package func irqChip(_ index: UInt32) throws(KVMError) -> kvm_irqchip {
    var state = kvm_irqchip()
    state.chip_id = index
    try check("KVM_GET_IRQCHIP", unsafe ckvm_get_irqchip(descriptor.number, &state))
    return state
  }

  /// The IOAPIC's redirection entries, one for each of its 24 inputs.
  package func ioapicRedirections() throws(KVMError) -> [UInt64] {
    var state = try irqChip(UInt32(KVM_IRQCHIP_IOAPIC))
    // The shim reads inside the structure whatever the index.
    return (0..<UInt32(KVM_IOAPIC_NUM_PINS)).map { unsafe ckvm_ioapic_redirection(&state, $0) }
  }

  /// Sets it. Corresponds to `KVM_SET_IRQCHIP`.
  package func setIRQChip(_ state: kvm_irqchip) throws(KVMError) {
    try unsafe set("KVM_SET_IRQCHIP", descriptor.number, state, ckvm_set_irqchip)
  }

  /// Makes `interrupts`, 8 to 15 except 8 and 13, level-triggered at the second 8259 (its ELCR).
  package func setLevelTriggered(_ interrupts: [UInt8]) throws(KVMError) {
    var state = try irqChip(UInt32(KVM_IRQCHIP_PIC_SLAVE))
    // The member of this chip's; any bits will do.
    for interrupt in interrupts { unsafe state.chip.pic.elcr |= 1 << (interrupt & 7) }
    try setIRQChip(state)
  }

  /// Makes the 8259s, the first and the second, as ICW1 to ICW4 leave them on a PC (8259A datasheet):
  /// with vectors from `bases` on, and with the interrupts off whose bits in `masks` are set.
  package func initializePICs(
    bases: (UInt8, UInt8), masks: (UInt8, UInt8)
  ) throws(KVMError) {
    for (chip, base, mask) in [
      (KVM_IRQCHIP_PIC_MASTER, bases.0, masks.0), (KVM_IRQCHIP_PIC_SLAVE, bases.1, masks.1),
    ] {
      var state = try irqChip(UInt32(chip))
      // The member of these chips'; any bits will do.
      unsafe state.chip.pic.irq_base = base
      unsafe state.chip.pic.imr = mask
      unsafe state.chip.pic.init4 = 1
      try setIRQChip(state)
    }
  }

  /// The state of the interval timer. Corresponds to `KVM_GET_PIT2`.
  package func pit() throws(KVMError) -> kvm_pit_state2 {
    try unsafe get("KVM_GET_PIT2", descriptor.number, kvm_pit_state2(), ckvm_get_pit2)
  }

  /// Sets it. Corresponds to `KVM_SET_PIT2`.
  package func setPIT(_ state: kvm_pit_state2) throws(KVMError) {
    try unsafe set("KVM_SET_PIT2", descriptor.number, state, ckvm_set_pit2)
  }

  /// Says which interrupt each GSI stands for; the table replaces the one before.
  ///
  /// Corresponds to `KVM_SET_GSI_ROUTING`.
  package func setRouting(_ entries: [kvm_irq_routing_entry]) throws(KVMError) {
    let (result, _) = unsafe withFlexibleArray(unsafe ckvm_routing_entries, entries) {
      unsafe ckvm_set_gsi_routing(descriptor.number, $0)
    }
    try check("KVM_SET_GSI_ROUTING", result)
  }

  // MARK: Events

  /// Lets `event` raise the interrupt `gsi` (or no longer). With `resample` the line stays up until
  /// the guest's end-of-interrupt, which raises that event. Corresponds to `KVM_IRQFD`.
  package func connect(
    _ event: borrowing Event, toGSI gsi: UInt32, resample: Int32? = nil, disconnect: Bool = false
  ) throws(KVMError) {
    var request = kvm_irqfd()
    request.fd = UInt32(bitPattern: event.descriptor.number)
    request.gsi = gsi
    if disconnect { request.flags |= UInt32(KVM_IRQFD_FLAG_DEASSIGN) }
    if let resample {
      request.flags |= UInt32(KVM_IRQFD_FLAG_RESAMPLE)
      request.resamplefd = UInt32(bitPattern: resample)
    }
    try check("KVM_IRQFD", unsafe ckvm_irqfd(descriptor.number, &request))
  }

  /// Where a doorbell listens.
  package enum Doorbell: Sendable {
    /// A port of the I/O space.
    case port(UInt16)
    /// A guest-physical address.
    case memory(GuestAddress)
  }

  /// Makes writes of `width` bytes (1, 2, 4, 8; 0 for any) to `doorbell` only raise `event`, without
  /// an exit to user space; with `value` only writes of that value. Corresponds to `KVM_IOEVENTFD`.
  package func connect(
    _ doorbell: Doorbell, width: UInt32, value: UInt64? = nil, to event: borrowing Event,
    disconnect: Bool = false
  ) throws(KVMError) {
    var request = kvm_ioeventfd()
    switch doorbell {
    case .port(let port):
      request.addr = UInt64(port)
      request.flags |= 1 << UInt32(kvm_ioeventfd_flag_nr_pio)
    case .memory(let address):
      request.addr = address.value
    }
    request.len = width
    request.fd = event.descriptor.number
    if let value {
      request.datamatch = value
      request.flags |= 1 << UInt32(kvm_ioeventfd_flag_nr_datamatch)
    }
    if disconnect { request.flags |= 1 << UInt32(kvm_ioeventfd_flag_nr_deassign) }
    try check("KVM_IOEVENTFD", unsafe ckvm_ioeventfd(descriptor.number, &request))
  }
}
