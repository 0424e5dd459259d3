import CKVM
import KVM

/// Which input of which controller each of KVM's GSIs is.
///
/// KVM's own table takes every GSI to the IOAPIC's input of its number. On a PC, and so in QEMU, the
/// 8254's interrupt 0 is at input 2, where kernels without ACPI look for it; interrupt 2 is the second
/// 8259, and nothing can raise it.
enum InterruptRouting {
  /// The inputs of the 8259s and of the IOAPIC.
  static let inputs: [kvm_irq_routing_entry] =
    (0..<UInt32(Layout.ioapicInputs)).filter { $0 != Layout.timerInput }.flatMap { gsi in
      let input = gsi == Layout.timerInterrupt ? Layout.timerInput : gsi
      let ioapic = kvm_irq_routing_entry.ioapic(gsi: gsi, input: input)
      return gsi < 16 ? [ioapic, .pic(gsi: gsi, interrupt: gsi)] : [ioapic]
    }
}
