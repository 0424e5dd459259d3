import Devices
import Host
import Synchronization

/// What VCPUs' threads are told, and how the run ends: the one place that VCPUs, devices, signals and
/// the user all ask.
///
/// The first who ends the run wins. The event loop is woken, and carries everything out.
package final class RunControl: MachineControl {
  /// What VCPUs' threads are to do; nothing: run the guest.
  struct Orders: OptionSet, Sendable {
    let rawValue: UInt8
    /// Wait outside the guest.
    static let hold = Orders(rawValue: 1 << 0)
    /// End; the machine goes on with other threads.
    static let leave = Orders(rawValue: 1 << 1)
    /// End; the run is over.
    static let end = Orders(rawValue: 1 << 2)
    /// Wait outside the guest: it has asked for a reset.
    static let reset = Orders(rawValue: 1 << 3)
    /// Wait outside the guest: it has asked to be suspended.
    static let suspend = Orders(rawValue: 1 << 4)
  }

  private let orderBits = Atomic<UInt8>(0)
  private let outcomeValue = RankedMutex<Outcome?>(.last, nil)
  private let isLookWanted = Atomic<Bool>(false)
  /// Raised by every request.
  let event: Event

  /// Whether VCPUs finish what they are at when the run ends.
  let keepsState: Bool

  init(keepsState: Bool = false) throws(Errno) {
    event = try Event()
    self.keepsState = keepsState
  }

  /// One load: the run loop asks before each entry.
  var orders: Orders {
    @inline(__always) get { Orders(rawValue: orderBits.load(ordering: .acquiring)) }
  }

  /// Adds `orders` to those that stand.
  func give(_ orders: Orders) {
    orderBits.bitwiseOr(orders.rawValue, ordering: .sequentiallyConsistent)
    event.raise()
  }

  /// Takes `orders` back.
  func withdraw(_ orders: Orders) {
    orderBits.bitwiseAnd(~orders.rawValue, ordering: .sequentiallyConsistent)
  }

  /// Whether the run is over: for those who wait on a VCPU's thread.
  var isEnding: Bool { orders.contains(.end) }

  /// How the run is to end, once somebody has said so.
  var outcome: Outcome? { outcomeValue.withLock { $0 } }

  /// Ends the run with `outcome`, unless it is ending already.
  func finish(_ outcome: Outcome) {
    outcomeValue.withLock { if $0 == nil { $0 = outcome } }
    give(.end)
  }

  /// Ends the run from outside: a user's wish or a signal. May be called from any thread.
  package func stop(_ reason: Outcome.StopReason) { finish(.stopped(reason)) }

  /// Has the machine stand still for `RunOptions.look`, and go on after it. May be called from any
  /// thread.
  package func requestLook() {
    isLookWanted.store(true, ordering: .releasing)
    event.raise()
  }

  /// Whether somebody asked for that since the last call.
  func takeLookRequest() -> Bool { isLookWanted.exchange(false, ordering: .acquiring) }

  /// Ends the run: the guest switched the power off.
  package func requestPowerOff() { finish(.poweredOff) }

  /// Makes all VCPUs leave, until the machine is woken.
  package func requestSuspend() { give(.suspend) }

  /// Resets the machine, or ends the run where that is wished: the guest asked for it.
  package func requestReset() { give(.reset) }

  /// Ends the run: the guest wrote `value` to the exit port.
  package func requestExit(_ value: UInt32) { finish(.exited(value)) }
}
