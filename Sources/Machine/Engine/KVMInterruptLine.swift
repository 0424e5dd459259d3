import Host
import Devices
import KVM

/// An interrupt input of the in-kernel controllers, as devices see it.
///
/// Before there are controllers it only remembers its level.
final class KVMInterruptLine: InterruptLine {
  private struct State {
    var vm: VM?
    var isRaised = false
  }

  private let gsi: UInt32
  private let trace: TraceSinks?
  private let state = RankedMutex(.kvm, State())

  init(gsi: UInt32, trace: TraceSinks?) {
    self.gsi = gsi
    self.trace = trace
  }

  func set(_ isRaised: Bool) {
    state.withLock { state in
      state.isRaised = isRaised
      // With controllers there, KVM_IRQ_LINE only fails for an input that they don't have.
      try? state.vm?.setIRQLine(gsi, isRaised)
    }
    trace?.interrupt(gsi, isRaised)
  }

  /// Goes to the controllers of `vm` from now on, and brings them the present level.
  func connect(to vm: VM) {
    state.withLock { state in
      state.vm = vm
      if state.isRaised { try? vm.setIRQLine(gsi, true) }
    }
  }
}
