import Synchronization

/// Knows the consoles of all machines that are made in a task: what a failing test has to show.
package final class ConsoleWitness: Sendable {
  /// The one of this task, if anybody wants to know.
  @TaskLocal package static var current: ConsoleWitness?

  private let shared = Mutex<[VirtualMachine.Console]>([])

  /// Knows none yet.
  package init() {}

  /// The consoles, the oldest machine's first.
  package var consoles: [VirtualMachine.Console] { shared.withLock { $0 } }

  func see(_ console: VirtualMachine.Console) { shared.withLock { $0.append(console) } }
}
