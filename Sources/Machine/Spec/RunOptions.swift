import Host

/// How a machine runs: what is no part of it, and no guest can see.
package struct RunOptions: Sendable {
  /// How long the run may take, in seconds; nil for as long as it likes.
  package var timeLimit: Double?
  /// What is recorded of each exit; nil, the default, costs nothing.
  package var observation: Observation?
  /// Whether a reset that the guest asks for starts the machine anew; else it ends the run.
  package var restartsAtReset = false
  /// Until when it may run, instead: a time of `Clock.monotonicNanoseconds`.
  package var deadline: UInt64?
  /// Where it takes commands while it runs (docs/control.md).
  package var control: ControlSocket?
  /// Who has it for their own, and gives it commands.
  package var owner: ControlOwner?
  /// A file that becomes readable when a thread made a system call that it has no right to, and what then
  /// tells of it and ends the process.
  package var violation: (file: Int32, tell: @Sendable (Machine) -> Never)?
  /// What clients there can have shown to them of the console.
  package var hub: ConsoleHub?
  /// Called once when commands are taken and the VCPUs run, or stand still as was asked.
  package var didStart: (@Sendable () -> Void)?
  /// The process's signals, which end the run in order; a library leaves them to its program.
  package var signals: SignalSource?
  /// What is done while the machine stands still, when `RunControl.requestLook()` asks for it or SIGUSR1
  /// comes. Then the guest goes on.
  package var look: (@Sendable (Machine) -> Void)?
  /// What is done with the machine when the run is over, whose devices then stand still and whose VCPUs'
  /// states are whole: nil, the default, saves each VCPU an entry.
  package var keep: (@Sendable (Machine, Outcome) -> Void)?
  /// Called when the process was stopped and goes on, or comes to the foreground (SIGCONT).
  package var didContinue: (@Sendable () -> Void)?
  /// Gets a sentence, on the event loop's thread, when a device can't go on or what stands behind it is
  /// lost: each kind once for each device, and at the end how many more there were.
  package var report: (@Sendable (String) -> Void)?

  /// To its end, however long that takes.
  package init(timeLimit: Double? = nil) { self.timeLimit = timeLimit }
}
