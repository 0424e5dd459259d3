import Devices
import Host
import Synchronization

/// Decides when a run ends: the one place that VCPUs, devices, signals and the user all ask.
///
/// The first request wins. The event loop is woken, and takes everything to its end.
public final class RunControl: MachineControl {
  /// What the VCPUs' threads are to do.
  enum Phase: UInt8, AtomicRepresentable {
    /// Run the guest.
    case running
    /// Wait outside the guest.
    case paused
    /// Leave, to sleep until the machine is woken.
    case suspended
    /// End.
    case stopping
  }

  private let phaseValue = Atomic<Phase>(.running)
  private let outcomeValue = Mutex<Outcome?>(nil)
  private let isLookWanted = Atomic<Bool>(false)
  /// Raised by every request.
  let event: Event

  init() throws(Errno) { event = try Event() }

  /// One load: the run loop asks before each entry.
  var phase: Phase {
    @inline(__always) get { phaseValue.load(ordering: .acquiring) }
  }

  /// Changes the phase, but never back from `.stopping`.
  func enter(_ phase: Phase) {
    var present = phaseValue.load(ordering: .relaxed)
    while present != .stopping {
      let (done, found) = phaseValue.compareExchange(
        expected: present, desired: phase, ordering: .sequentiallyConsistent)
      if done { return }
      present = found
    }
  }

  /// Changes the phase from `old` to `new`, and says whether it was `old`.
  func change(from old: Phase, to new: Phase) -> Bool {
    phaseValue.compareExchange(expected: old, desired: new, ordering: .sequentiallyConsistent)
      .exchanged
  }

  /// How the run is to end, once somebody has said so.
  var outcome: Outcome? { outcomeValue.withLock { $0 } }

  /// Ends the run with `outcome`, unless it is ending already.
  func finish(_ outcome: Outcome) {
    outcomeValue.withLock { if $0 == nil { $0 = outcome } }
    enter(.stopping)
    event.raise()
  }

  /// Ends the run from outside: a user's wish or a signal. May be called from any thread.
  public func stop(_ reason: Outcome.StopReason) { finish(.stopped(reason)) }

  /// Has the machine stand still for `Configuration.look`, and go on after it. May be called from any
  /// thread.
  public func requestLook() {
    isLookWanted.store(true, ordering: .releasing)
    event.raise()
  }

  /// Whether somebody asked for that since the last call.
  func takeLookRequest() -> Bool { isLookWanted.exchange(false, ordering: .acquiring) }

  /// Ends the run: the guest switched the power off.
  public func requestPowerOff() { finish(.poweredOff) }

  /// Makes all VCPUs leave, until the machine is woken.
  public func requestSuspend() {
    enter(.suspended)
    event.raise()
  }

  /// Ends the run: the guest asked for a reset.
  public func requestReset() { finish(.reset) }

  /// Ends the run: the guest wrote `value` to the exit port.
  public func requestExit(_ value: UInt32) { finish(.exited(value)) }
}
