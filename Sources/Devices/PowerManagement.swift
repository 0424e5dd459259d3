import Host

/// The fixed hardware of ACPI as the PIIX4 has it: PM1a's event and control registers and the
/// power-management timer, in 12 ports (ACPI 6.5, 4.8.3).
///
/// There is no System Management Mode, so the machine is in ACPI mode from the start (SCI_EN is
/// always set). The timer's status comes as time passes, for guests that look; an SCI of its own it
/// raises no sooner than at the next access, since kernels keep time by other means.
package final class PowerManagement: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "acpi-pm" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }

  private let machine: any MachineControl
  private let line: any InterruptLine
  private let now: @Sendable () -> UInt64
  private let registers: RankedMutex<Registers>

  /// What must be in SLP_TYP for the power to go off, as in the PIIX4. Guests without ACPI count on
  /// it: they write 0x2000, SLP_EN alone, as they do for QEMU.
  package static let powerOffType: UInt8 = 0
  /// What must be in SLP_TYP for the machine to be suspended to RAM, as in the PIIX4 and in QEMU.
  package static let suspendType: UInt8 = 1
  /// How fast the timer counts.
  package static let timerHertz: UInt64 = 3_579_545

  /// Where the registers stand, from the first port on; PM1_STS is at 0.
  private enum Offset {
    static let enable = 2
    static let control = 4
    static let timer = 8
    static let end = 12
  }

  private struct Registers {
    // When the timer was zero.
    var start: UInt64
    var status: Events = []
    var enable: Events = []
    var control: Control = []
    // How often the timer's highest bit had changed when it was last looked at.
    var timerChanges: UInt64 = 0
    var isRaised = false
  }

  /// PM1_STS and PM1_EN (4.8.3.1).
  private struct Events: OptionSet {
    let rawValue: UInt16
    static let timer = Self(rawValue: 1 << 0)
    static let global = Self(rawValue: 1 << 5)
    static let powerButton = Self(rawValue: 1 << 8)
    static let realTimeClock = Self(rawValue: 1 << 10)
    static let wake = Self(rawValue: 1 << 15)
    // No sleep button. The clock's alarm comes only to wake a suspended machine, but Linux complains
    // if it can't be enabled.
    static let all: Self = [.timer, .global, .powerButton, .realTimeClock]
    static let possible: Self = all.union(.wake)
  }

  /// PM1_CNT (4.8.3.2).
  private struct Control: OptionSet {
    let rawValue: UInt16
    static let sciEnable = Self(rawValue: 1 << 0)
    static let busMasterReload = Self(rawValue: 1 << 1)
    static let sleepTypeBits = Self(rawValue: 7 << 10)
    static let sleepEnable = Self(rawValue: 1 << 13)
    // The others read zero: GBL_RLS and SLP_EN are for writing only.
    static let kept: Self = [.busMasterReload, .sleepTypeBits]
    var sleepType: UInt8 { UInt8(rawValue >> 10 & 7) }
  }

  /// Registers that switch `machine` off and raise `line`, the SCI; `now` is any clock that counts
  /// nanoseconds and never goes back.
  package init(
    machine: any MachineControl, line: any InterruptLine, now: @escaping @Sendable () -> UInt64
  ) {
    self.machine = machine
    self.line = line
    self.now = now
    registers = RankedMutex(.registers, Registers(start: now()))
  }

  /// Tells the guest that somebody has pressed the power button.
  package func pressPowerButton() {
    registers.withLock { registers in
      registers.status.insert(.powerButton)
      update(&registers)
    }
  }

  /// Whether the clock's alarm may wake a suspended machine (ACPI 6.5, 4.8.2.4: RTC_EN).
  package var clockMayWake: Bool { registers.withLock { $0.enable.contains(.realTimeClock) } }

  /// Tells the guest that its machine has been woken by the clock's alarm.
  package func wakeByClock() {
    registers.withLock { $0.status.formUnion([.wake, .realTimeClock]) }
  }
}

// MARK: - Accesses

extension PowerManagement {
  /// Answers the registers' bytes; between the registers there are ones.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    return registers.withLock { registers in
      let ticks = ticks(since: registers.start)
      advance(&registers, to: ticks)
      return (0..<width).reduce(0) { value, index in
        let place = Int(truncatingIfNeeded: offset & 0xFF) + index
        return value | UInt64(byte(place, registers, ticks)) << UInt64(index * 8)
      }
    }
  }

  /// Takes the registers' bytes, each by its own rule.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    let sleepType = registers.withLock { registers in
      advance(&registers, to: ticks(since: registers.start))
      var sleepType: UInt8?
      for index in 0..<width {
        let byte = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
        let place = Int(truncatingIfNeeded: offset & 0xFF) + index
        if let type = write(byte, place, &registers) { sleepType = type }
      }
      update(&registers)
      return sleepType
    }
    switch sleepType {
    case Self.powerOffType: machine.requestPowerOff()
    case Self.suspendType: machine.requestSuspend()
    default: break
    }
  }

  private func byte(_ place: Int, _ registers: Registers, _ ticks: UInt64) -> UInt8 {
    let shift = UInt16(place & 1) * 8
    switch place {
    case ..<Offset.enable: return UInt8(truncatingIfNeeded: registers.status.rawValue >> shift)
    case ..<Offset.control: return UInt8(truncatingIfNeeded: registers.enable.rawValue >> shift)
    case ..<(Offset.control + 2):
      return UInt8(truncatingIfNeeded: registers.control.union(.sciEnable).rawValue >> shift)
    case ..<Offset.timer: return 0xFF
    case ..<Offset.end:
      // TMR_VAL_EXT isn't set in FADT: 24 bits, and zeros above.
      return UInt8(truncatingIfNeeded: (ticks & 0xFF_FFFF) >> UInt64((place & 3) * 8))
    default: return 0xFF
    }
  }

  /// Takes one byte; returns the type of sleep that it starts.
  private func write(_ byte: UInt8, _ place: Int, _ registers: inout Registers) -> UInt8? {
    let shift = UInt16(place & 1) * 8
    let bits = UInt16(byte) << shift
    let others = ~(UInt16(0xFF) << shift)
    switch place {
    case ..<Offset.enable: registers.status.subtract(Events(rawValue: bits))
    case ..<Offset.control:
      let new = Events(rawValue: registers.enable.rawValue & others | bits)
      registers.enable = new.intersection(.all)
    case ..<(Offset.control + 2):
      let new = Control(rawValue: registers.control.rawValue & others | bits)
      registers.control = new.intersection(.kept)
      return new.contains(.sleepEnable) ? new.sleepType : nil
    default: break
    }
    return nil
  }
}

// MARK: - Time and the SCI

extension PowerManagement {
  // Whole seconds and the rest apart, so that no product overflows.
  private func ticks(since start: UInt64) -> UInt64 {
    let (seconds, fraction) = (now() &- start).quotientAndRemainder(dividingBy: 1_000_000_000)
    return seconds &* Self.timerHertz &+ fraction * Self.timerHertz / 1_000_000_000
  }

  /// TMR_STS is set whenever bit 23 of the timer changes (4.8.3.3).
  private func advance(_ registers: inout Registers, to ticks: UInt64) {
    let changes = ticks >> 23
    if changes != registers.timerChanges { registers.status.insert(.timer) }
    registers.timerChanges = changes
    update(&registers)
  }

  private func update(_ registers: inout Registers) {
    let isRaised = !registers.status.isDisjoint(with: registers.enable)
    if isRaised != registers.isRaised { line.set(isRaised) }
    registers.isRaised = isRaised
  }
}

// MARK: - State

extension PowerManagement: Stateful {
  /// Makes all registers as new, the timer zero.
  package func reset() { take(Registers(start: now())) }

  /// Writes the registers, and for how long the timer has counted.
  package func save(to state: inout StateWriter) {
    let registers = registers.withLock { $0 }
    state.write("status", registers.status.rawValue)
    state.write("enable", registers.enable.rawValue)
    state.write("control", registers.control.rawValue)
    state.write("timer-changes", registers.timerChanges)
    state.write("nanoseconds", now() &- registers.start)
  }

  /// Takes them back. The timer goes on from there, whatever the host's clock says.
  package func restore(from state: StateReader) throws(StateError) {
    var new = Registers(start: now() &- (try state.read("nanoseconds")))
    new.status = Events(rawValue: try state.read("status", bits: Events.possible.rawValue))
    new.enable = Events(rawValue: try state.read("enable", bits: Events.all.rawValue))
    new.control = Control(rawValue: try state.read("control", bits: Control.kept.rawValue))
    new.timerChanges = try state.read("timer-changes")
    take(new)
  }

  private func take(_ new: Registers) {
    registers.withLock { registers in
      registers = new
      registers.isRaised = !new.status.isDisjoint(with: new.enable)
      line.set(registers.isRaised)
    }
  }
}
