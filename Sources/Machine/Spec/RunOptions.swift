/// How a machine runs: what is no part of it, and no guest can see.
public struct RunOptions: Sendable {
  /// How long the run may take, in seconds; nil for as long as it likes.
  public var timeLimit: Double?
  /// What is recorded of each exit; nil, the default, costs nothing.
  public var observation: Observation?
  /// Whether a reset that the guest asks for starts the machine anew; else it ends the run.
  public var restartsAtReset = false
  /// Signals that end the run in order, by number. They are blocked in the calling thread while it
  /// runs; a library leaves them to its program.
  public var endingSignals: [Int32] = []
  /// What is done while the machine stands still, when `RunControl.requestLook()` asks for it or the
  /// signal of that number comes, which is blocked like the ending ones. Then the guest goes on.
  public var look: (signal: Int32, body: @Sendable (Machine) -> Void)?
  /// Gets a sentence, from any thread, when a device can't go on because of its driver.
  public var deviceTrouble: (@Sendable (String) -> Void)?
  /// Input that comes before the console's, such as what a machine left unread that was reset.
  public var unreadInput: [UInt8] = []

  /// To its end, however long that takes.
  public init(timeLimit: Double? = nil) { self.timeLimit = timeLimit }
}
