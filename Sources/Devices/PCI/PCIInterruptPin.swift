import Host

/// A function's INTx# pin: what its device says, held back by Interrupt Disable (PCI 3.0, 6.2.2).
package final class PCIInterruptPin: InterruptLine {
  private struct State {
    var isRaised = false
    var isDisabled = false
    var line: (any InterruptLine)?
  }

  private let state = RankedMutex(.pin, State())

  /// Raises or lowers the pin. The level stays: a device lowers it when its driver has served it.
  package func set(_ isRaised: Bool) {
    state.withLock { state in
      state.isRaised = isRaised
      state.line?.set(isRaised && !state.isDisabled)
    }
  }

  /// Interrupt Status: whether the device wants an interrupt, disabled or not (6.2.3).
  var isRaised: Bool { state.withLock { $0.isRaised } }

  /// Sets Interrupt Disable.
  func disable(_ isDisabled: Bool) {
    state.withLock { state in
      state.isDisabled = isDisabled
      state.line?.set(state.isRaised && !isDisabled)
    }
  }

  /// Lowers the pin and lets it through; whoever raised it is reset too.
  func reset() {
    state.withLock { state in
      (state.isRaised, state.isDisabled) = (false, false)
      state.line?.set(false)
    }
  }

  /// Goes to `line` from now on.
  func connect(to line: any InterruptLine) {
    state.withLock { state in
      state.line = line
      line.set(state.isRaised && !state.isDisabled)
    }
  }
}
