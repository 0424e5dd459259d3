import CKVM

/// What a GSI stands for, as `VM.setRouting` takes it.
extension kvm_irq_routing_entry {
  /// An input of the IOAPIC.
  package static func ioapic(gsi: UInt32, input: UInt32) -> Self {
    controller(gsi, UInt32(KVM_IRQCHIP_IOAPIC), input)
  }

  /// An interrupt of the two 8259s, 0 to 15.
  package static func pic(gsi: UInt32, interrupt: UInt32) -> Self {
    let chip = interrupt < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE
    return controller(gsi, UInt32(chip), interrupt & 7)
  }

  /// A message-signalled interrupt.
  package static func message(gsi: UInt32, address: UInt64, data: UInt32) -> Self {
    var entry = Self()
    entry.gsi = gsi
    entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
    // The union's member of that type, all of whose bits mean something.
    unsafe entry.u.msi.address_lo = UInt32(truncatingIfNeeded: address)
    unsafe entry.u.msi.address_hi = UInt32(truncatingIfNeeded: address >> 32)
    unsafe entry.u.msi.data = data
    return entry
  }

  private static func controller(_ gsi: UInt32, _ chip: UInt32, _ pin: UInt32) -> Self {
    var entry = Self()
    entry.gsi = gsi
    entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
    // As above.
    unsafe entry.u.irqchip.irqchip = chip
    unsafe entry.u.irqchip.pin = pin
    return entry
  }
}
