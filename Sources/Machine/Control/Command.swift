import Host

/// What can be asked of a machine from outside, at any time and from any thread.
package enum Command: Sendable {
  /// Stand still, with nothing in flight, until told to resume.
  case pause
  /// Go on.
  case resume
  /// Start anew, as by the reset button.
  case reset
  /// Press the power button: what follows is the guest's decision.
  case powerButton
  /// End the run; nil as if its time were over.
  case stop(Outcome.StopReason?)
  /// Stand still for a moment in which this is called, on the event loop's thread; it must not wait.
  case inspect(@Sendable (Machine) -> Void)
  /// The same, but the machine goes on standing still until `release`, whatever else is asked for; only
  /// its end isn't kept from it.
  case hold(@Sendable (Machine) -> Void)
  /// Let go of what one `hold` held.
  case release
  /// This is called at once, on the event loop's thread, while the machine runs; it must not wait.
  case look(@Sendable (Machine) -> Void)
}

/// Why a command was refused.
package enum CommandError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The run is over.
  case hasEnded
  /// Somebody has let the machine go on before it stood still.
  case resumed
  /// It isn't paused.
  case isNotPaused

  /// In a sentence.
  package var description: String {
    switch self {
    case .hasEnded: "the machine has ended"
    case .resumed: "the machine was resumed before it stood still"
    case .isNotPaused: "the machine isn't paused"
    }
  }
}

/// What a machine is doing.
public enum MachineState: String, Sendable {
  /// It has not been run.
  case created
  /// Its VCPUs run.
  case running
  /// It stands still until it is resumed.
  case paused
  /// The guest has suspended it to RAM.
  case suspended
  /// The run is over.
  case ended
}

/// Commands on their way to the event loop, which answers each once.
package final class CommandQueue: Sendable {
  /// Gets the answer, on the event loop's thread or, after the end, at once: it must not wait.
  package typealias Reply = @Sendable (Result<Void, CommandError>) -> Void

  struct Request: Sendable {
    let command: Command
    let reply: Reply
  }

  private struct State {
    var waiting: [Request] = []
    var machine = MachineState.created
  }

  private let shared = RankedMutex(.last, State())
  private let event: Event

  init() throws(Errno) { event = try Event() }

  /// Readable when something has come.
  var descriptor: FileDescriptor { FileDescriptor(borrowing: event.descriptor.number) }

  /// What the machine is doing now.
  package var state: MachineState { shared.withLock { $0.machine } }

  /// Asks for `command`; `reply` is called when it is done or refused.
  package func send(_ command: Command, reply: @escaping Reply = { _ in }) {
    let isTaken = shared.withLock { state in
      guard state.machine != .ended else { return false }
      state.waiting.append(Request(command: command, reply: reply))
      return true
    }
    if isTaken { event.raise() } else { reply(.failure(.hasEnded)) }
  }

  /// What has come, in order.
  func take() -> [Request] {
    event.consume()
    return shared.withLock { state in
      defer { state.waiting = [] }
      return state.waiting
    }
  }

  /// Notes what the machine is doing. After the end all that waits is refused.
  func note(_ machine: MachineState) {
    let refused = shared.withLock { state in
      guard state.machine != .ended else { return [] as [Request] }
      state.machine = machine
      guard machine == .ended else { return [] }
      defer { state.waiting = [] }
      return state.waiting
    }
    for request in refused { request.reply(.failure(.hasEnded)) }
  }

  /// Whether the machine has not been run, which it is from now on.
  func begin() -> Bool {
    shared.withLock { state in
      guard state.machine == .created else { return false }
      state.machine = .running
      return true
    }
  }
}
