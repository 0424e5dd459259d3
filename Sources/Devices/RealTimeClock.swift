import Host
import Synchronization

/// The PC's real-time clock and CMOS RAM, an MC146818A: an index port (0x70) and a data port (0x71).
///
/// The flags of register C come as time passes, for guests that poll them, and for a suspended machine
/// to wake by the alarm. Those that register B enables raise the interrupt, until C is read; only for
/// them somebody has to wait.
package final class RealTimeClock: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "rtc" }
  private let line: (any InterruptLine)?
  private let hostTime: @Sendable () -> Int64
  private let schedule: @Sendable (Int64?) -> Void
  private let state: RankedMutex<RealTimeClockState>
  /// How far the time that is counted here is ahead of the host's, in nanoseconds: 0 until the clock
  /// is restored.
  private let lead = Atomic<Int64>(0)

  /// What firmware and kernels look up in CMOS RAM about the machine.
  package struct MachineSizes: Sendable {
    /// RAM below 4 GiB in bytes, from address 0 on.
    package let ramBelow4GiB: UInt64
    /// RAM above 4 GiB in bytes.
    package let ramAbove4GiB: UInt64
    /// How many CPUs there are, at least one.
    package let cpuCount: Int

    /// Takes the three as they are.
    package init(ramBelow4GiB: UInt64, ramAbove4GiB: UInt64, cpuCount: Int) {
      self.ramBelow4GiB = ramBelow4GiB
      self.ramAbove4GiB = ramAbove4GiB
      self.cpuCount = cpuCount
    }
  }

  /// A clock that shows the time of `now`, in nanoseconds since 1970 UTC, until the guest sets it.
  ///
  /// `line` is its interrupt; it and `schedule` are called under the clock's lock, and must not call
  /// back. `schedule` gets the nanoseconds until `tick()` shall be called; nil for not at all.
  package init(
    sizes: MachineSizes, line: (any InterruptLine)? = nil, now: @escaping @Sendable () -> Int64,
    schedule: @escaping @Sendable (Int64?) -> Void = { _ in }
  ) {
    self.line = line
    hostTime = now
    self.schedule = schedule
    state = RankedMutex(.registers, RealTimeClockState(sizes: sizes, now: now()))
  }

  private func now() -> Int64 { hostTime() &+ lead.load(ordering: .relaxed) }

  /// Whether the alarm has come by now and is enabled, for a suspended machine to wake by.
  package var hasAlarm: Bool {
    state.withLock { state in
      state.advance(to: now())
      return state.hasAlarm
    }
  }

  /// Lets the time pass until now: an interrupt may be due.
  package func tick() {
    state.withLock { state in
      state.advance(to: now())
      follow(&state)
    }
  }

  /// Lets the line show what register C has, and asks to be called when that changes by itself.
  private func follow(_ state: inout RealTimeClockState) {
    if state.isInterrupting != state.isLineRaised {
      state.isLineRaised.toggle()
      line?.set(state.isLineRaised)
    }
    let delay = state.nanosecondsToInterrupt
    guard delay != nil || state.isWaiting else { return }
    state.isWaiting = delay != nil
    schedule(delay)
  }

  /// Answers a read of the data port; the index port is write-only and reads ones.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset & 1 == 1 else { return 0xFF }
    return state.withLock { state in
      state.advance(to: now())
      let value = state.read()
      follow(&state)
      return UInt64(value)
    }
  }

  /// Takes a write: the index at the first port, whose bit 7 masks NMIs, or data at the second.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    state.withLock { state in
      if offset & 1 == 0 {
        // There are no NMIs to mask.
        state.index = byte & 0x7F
      } else {
        state.advance(to: now())
        state.write(byte)
        follow(&state)
      }
    }
  }
}

// MARK: - State

extension RealTimeClock: Stateful {
  /// Does what the MC146818A's RESET does (page 12): interrupts are off, their flags clear. The
  /// battery keeps time, alarm, formats and RAM.
  package func reset() {
    state.withLock { state in
      state.advance(to: now())
      state.reset()
      driveAnew(&state)
    }
  }

  /// Writes all bytes, and what time it is on the clock that they are counted by and on the host's.
  package func save(to state: inout StateWriter) {
    self.state.withLock { $0.save(to: &state) }
    state.write("now", now())
    state.write("host-now", hostTime())
  }

  /// Takes them back; the guest's clock goes on as if no time had passed.
  package func restore(from state: StateReader) throws(StateError) {
    _ = try restore(from: state, countingAbsence: false)
  }

  /// The same, or the time that has passed on the host since the save passes for the guest at once,
  /// as it does for a PC that is switched off. Returns how many nanoseconds those are; none where the host's
  /// clock is behind what it was.
  @discardableResult
  package func restore(
    from state: StateReader, countingAbsence: Bool
  ) throws(StateError) -> UInt64 {
    let new = try RealTimeClockState(state)
    let saved: Int64 = try state.read("now")
    let hostSaved: Int64 = try state.read("host-now")
    let absence = countingAbsence ? max(0, hostTime().subtractingReportingOverflow(hostSaved).0) : 0
    self.state.withLock { state in
      lead.store(saved &- hostTime() &+ absence, ordering: .relaxed)
      state = new
      driveAnew(&state)
    }
    return UInt64(absence)
  }

  private func driveAnew(_ state: inout RealTimeClockState) {
    state.isLineRaised = state.isInterrupting
    line?.set(state.isLineRaised)
    // So that the timer is set or stopped, whatever it was set to.
    state.isWaiting = true
    follow(&state)
  }
}
