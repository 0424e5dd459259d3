/// How a run ended.
public enum Outcome: Sendable {
  /// The guest switched the power off.
  case poweredOff
  /// All VCPUs halted with interrupts off: nothing can end that.
  case halted
  /// The guest asked for a reset.
  case reset
  /// The guest wrote this to the exit port.
  case exited(UInt32)
  /// The guest crashed; the account of it.
  case crashed(CrashReport)
  /// The time given to the run is over; where each VCPU stood.
  case timedOut([VCPUPosition])
  /// Somebody stopped the run: the reason is whatever was given to `RunControl.stop(_:)`.
  case stopped(StopReason)
  /// The machine was to be reset, and the file of its image, firmware or initial RAM disk, which is
  /// named, is no longer what it was started with.
  case inputChanged(String)
  /// The host let the run down: what happened, in words.
  case hostFailed(String)

  /// Who stopped a run.
  public enum StopReason: Sendable, Equatable {
    /// The user, from the console.
    case user
    /// A signal, by number.
    case signal(Int32)
  }

  /// Whether neither the guest nor the host ended it, but the user, a signal or the time limit.
  public var isFromOutside: Bool {
    switch self {
    case .timedOut, .stopped: true
    default: false
    }
  }

  /// The exit status that the command line promises for this end.
  public var exitStatus: Int32 {
    switch self {
    case .poweredOff, .halted, .reset, .stopped(.user): 0
    case .exited(let value): Int32((value << 1 | 1) & 0xFF)
    case .crashed: 70
    case .inputChanged: 66
    case .hostFailed: 71
    case .timedOut: 124
    case .stopped(.signal(let number)): 128 + number
    }
  }
}

/// Where a VCPU was when somebody looked.
public struct VCPUPosition: Sendable {
  /// The VCPU's number.
  public let vcpu: Int
  /// In words: the instruction pointer and what it was doing, or why that can't be told.
  public let text: String
}
