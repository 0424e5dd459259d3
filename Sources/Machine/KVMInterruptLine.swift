import Devices
import KVM

/// An interrupt input of the in-kernel controllers, as devices see it.
final class KVMInterruptLine: InterruptLine {
  private let vm: VM
  private let gsi: UInt32
  private let trace: TraceSinks?

  init(_ vm: VM, gsi: UInt32, trace: TraceSinks?) {
    self.vm = vm
    self.gsi = gsi
    self.trace = trace
  }

  func set(_ isRaised: Bool) {
    // With the in-kernel controllers made, KVM_IRQ_LINE only fails for an input that isn't there.
    try? vm.setIRQLine(gsi, isRaised)
    trace?.interrupt(gsi, isRaised)
  }
}
