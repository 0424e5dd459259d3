import Host

/// One interrupt input for several devices: raised as long as any of them raises it, as
/// level-triggered lines are wired.
package final class SharedInterruptLine: Sendable {
  private let line: any InterruptLine
  private let raised = RankedMutex(.shared, 0)

  /// Shares `line`, which is low.
  package init(_ line: any InterruptLine) { self.line = line }

  /// An input of its own for one more device, low at first.
  package func makeInput() -> any InterruptLine { Input(self) }

  fileprivate func add(_ change: Int) {
    // The line is set under the lock: levels reach it in the order they came about.
    raised.withLock { raised in
      let wasRaised = raised > 0
      raised &+= change
      if wasRaised != (raised > 0) { line.set(raised > 0) }
    }
  }

  private final class Input: InterruptLine {
    private let shared: SharedInterruptLine
    private let level = RankedMutex(.input, false)

    init(_ shared: SharedInterruptLine) { self.shared = shared }

    func set(_ isRaised: Bool) {
      level.withLock { level in
        guard level != isRaised else { return }
        level = isRaised
        shared.add(isRaised ? 1 : -1)
      }
    }
  }
}
