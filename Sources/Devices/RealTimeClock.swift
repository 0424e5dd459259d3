import Synchronization

/// The PC's real-time clock and CMOS RAM, an MC146818A: an index port (0x70) and a data port (0x71).
///
/// The flags of register C come as time passes, for guests that poll them, and for a suspended machine
/// to wake by the alarm. IRQ 8 is never raised:
/// that would take a timer of the machine's for every guest, and kernels keep time by others.
public final class RealTimeClock: Device {
  /// The name that traces and tables show.
  public var name: StaticString { "rtc" }
  private let now: @Sendable () -> Int64
  private let state: Mutex<RealTimeClockState>

  /// What firmware and kernels look up in CMOS RAM about the machine.
  public struct MachineSizes: Sendable {
    /// RAM below 4 GiB in bytes, from address 0 on.
    public let ramBelow4GiB: UInt64
    /// RAM above 4 GiB in bytes.
    public let ramAbove4GiB: UInt64
    /// How many CPUs there are, at least one.
    public let cpuCount: Int

    /// Takes the three as they are.
    public init(ramBelow4GiB: UInt64, ramAbove4GiB: UInt64, cpuCount: Int) {
      self.ramBelow4GiB = ramBelow4GiB
      self.ramAbove4GiB = ramAbove4GiB
      self.cpuCount = cpuCount
    }
  }

  /// A clock that shows the time of `now`, in nanoseconds since 1970 UTC, until the guest sets it.
  public init(sizes: MachineSizes, now: @escaping @Sendable () -> Int64) {
    self.now = now
    state = Mutex(RealTimeClockState(sizes: sizes, now: now()))
  }

  /// Whether the alarm has come by now and is enabled, for a suspended machine to wake by.
  public var hasAlarm: Bool {
    state.withLock { state in
      state.advance(to: now())
      return state.hasAlarm
    }
  }

  /// Answers a read of the data port; the index port is write-only and reads ones.
  public func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset & 1 == 1 else { return 0xFF }
    return state.withLock { state in
      state.advance(to: now())
      return UInt64(state.read())
    }
  }

  /// Takes a write: the index at the first port, whose bit 7 masks NMIs, or data at the second.
  public func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    state.withLock { state in
      if offset & 1 == 0 {
        // There are no NMIs to mask.
        state.index = byte & 0x7F
      } else {
        state.advance(to: now())
        state.write(byte)
      }
    }
  }
}
