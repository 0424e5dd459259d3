/// The 128 bytes of an MC146818A as plain values, and how they change as time passes.
///
/// The time registers are what they seem: a guest's value stays in them, sensible or not, until the
/// next second counts on from it.
struct RealTimeClockState: Sendable {
  var index: UInt8 = 0
  /// Whether the interrupt line shows it, and whether somebody waits for the next interrupt.
  var isLineRaised = false
  var isWaiting = false
  private var bytes = InlineArray<128, UInt8>(repeating: 0)
  // The host's time that the registers were last brought up to, in nanoseconds since 1970.
  private var lastAdvance: Int64

  private static let nanoseconds: Int64 = 1_000_000_000
  // UIP rises 244 µs before the update (figure 15).
  private static let updateLead: Int64 = 244_141
  // Register D: the battery is good.
  private static let vrt: UInt8 = 0x80

  private enum Register {
    static let seconds: UInt8 = 0x00
    static let secondsAlarm: UInt8 = 0x01
    static let minutes: UInt8 = 0x02
    static let minutesAlarm: UInt8 = 0x03
    static let hours: UInt8 = 0x04
    static let hoursAlarm: UInt8 = 0x05
    static let dayOfWeek: UInt8 = 0x06
    static let dayOfMonth: UInt8 = 0x07
    static let month: UInt8 = 0x08
    static let year: UInt8 = 0x09
    static let a: UInt8 = 0x0A
    static let b: UInt8 = 0x0B
    static let c: UInt8 = 0x0C
    static let d: UInt8 = 0x0D
    // IBM's, where ACPI's FADT says so.
    static let century: UInt8 = 0x32
  }

  private struct RegisterA: OptionSet {
    let rawValue: UInt8
    // The two upper bits of DV: both set hold the divider, and with it the time, in reset.
    static let dividerReset = Self(rawValue: 0x60)
    static let uip = Self(rawValue: 0x80)
    var rateSelect: UInt8 { rawValue & 0x0F }
  }

  private struct RegisterB: OptionSet {
    let rawValue: UInt8
    static let hours24 = Self(rawValue: 0x02)
    static let dm = Self(rawValue: 0x04)
    static let sqwe = Self(rawValue: 0x08)
    static let uie = Self(rawValue: 0x10)
    static let aie = Self(rawValue: 0x20)
    static let pie = Self(rawValue: 0x40)
    static let set = Self(rawValue: 0x80)
  }

  private struct RegisterC: OptionSet {
    let rawValue: UInt8
    static let uf = Self(rawValue: 0x10)
    static let af = Self(rawValue: 0x20)
    static let pf = Self(rawValue: 0x40)
    static let irqf = Self(rawValue: 0x80)
    static let kept: Self = [.uf, .af, .pf]
  }

  /// The registers as firmware leaves them: BCD, 24 hours, the time of `now`.
  init(sizes: RealTimeClock.MachineSizes, now: Int64) {
    lastAdvance = now
    self[Register.a] = 0x26
    self[Register.b] = RegisterB.hours24.rawValue
    self[Register.d] = Self.vrt
    time = CivilTime(
      secondsSince1970: now.flooredDivision(by: Self.nanoseconds).quotient)
    store(sizes)
  }

  private subscript(_ index: UInt8) -> UInt8 {
    get { bytes[Int(index & 0x7F)] }
    set { bytes[Int(index & 0x7F)] = newValue }
  }
}

// MARK: - Registers

extension RealTimeClockState {
  private var registerA: RegisterA { RegisterA(rawValue: self[Register.a]) }
  private var registerB: RegisterB { RegisterB(rawValue: self[Register.b]) }

  /// Reads the byte that `index` selects.
  mutating func read() -> UInt8 {
    switch index {
    case Register.a:
      return registerA.union(isUpdateNear ? .uip : []).rawValue
    case Register.c:
      let flags = RegisterC(rawValue: self[Register.c]).union(isInterrupting ? .irqf : [])
      self[Register.c] = 0
      return flags.rawValue
    default:
      return self[index]
    }
  }

  /// IRQF: whether a flag is set that is to be an interrupt. The enable bits of B stand where the flags
  /// do in C.
  var isInterrupting: Bool { self[Register.c] & registerB.rawValue & 0x70 != 0 }

  /// Whether the alarm has come, and is to be an interrupt.
  var hasAlarm: Bool {
    registerB.contains(.aie) && RegisterC(rawValue: self[Register.c]).contains(.af)
  }

  /// Writes the byte that `index` selects.
  mutating func write(_ value: UInt8) {
    switch index {
    case Register.a: self[Register.a] = RegisterA(rawValue: value).subtracting(.uip).rawValue
    case Register.b: setRegisterB(RegisterB(rawValue: value))
    case Register.c, Register.d: break
    default: self[index] = value
    }
  }

  private mutating func setRegisterB(_ value: RegisterB) {
    let changed = registerB.symmetricDifference(value)
    let wasSetting = registerB.contains(.set)
    let shown = time
    self[Register.b] = value.rawValue
    if value.contains(.set) {
      self[Register.b] = value.subtracting(.uie).rawValue
    } else if !wasSetting && !changed.isDisjoint(with: [.dm, .hours24]) {
      // The chip leaves the old digits; a guest that only wants another format expects the time.
      time = shown
    }
  }
}

// MARK: - Time

extension RealTimeClockState {
  private var isRunning: Bool {
    !registerB.contains(.set) && !registerA.contains(.dividerReset)
  }

  private var isUpdateNear: Bool {
    let fraction = lastAdvance.flooredDivision(by: Self.nanoseconds).remainder
    return isRunning && fraction >= Self.nanoseconds - Self.updateLead
  }

  /// Lets the time pass that has gone by on the host; it may have gone back, too.
  mutating func advance(to now: Int64) {
    let before = lastAdvance
    lastAdvance = now
    if !registerA.contains(.dividerReset) && periods(at: now) > periods(at: before) {
      raise(.pf)
    }
    let elapsed = seconds(now) - seconds(before)
    guard isRunning && elapsed != 0 else { return }
    let end = time.secondsSince1970 + elapsed
    time = CivilTime(secondsSince1970: end)
    guard elapsed > 0 else { return }
    raise(.uf)
    if alarmMatches(within: elapsed, before: end) { raise(.af) }
  }

  /// How long it is until an enabled flag may be set; nil if there is nothing to wait for, such as
  /// while the interrupt is there already.
  var nanosecondsToInterrupt: Int64? {
    guard !isInterrupting else { return nil }
    var delay: Int64?
    let (second, fraction) = lastAdvance.flooredDivision(by: Self.nanoseconds)
    // An alarm is looked for each second, as the chip does (page 10).
    if isRunning && !registerB.isDisjoint(with: [.uie, .aie]) {
      delay = Self.nanoseconds - fraction
    }
    if registerB.contains(.pie) && !registerA.contains(.dividerReset), let hertz = periodicHertz {
      let next = periods(at: lastAdvance) + 1 - second * hertz
      let time = (next * Self.nanoseconds + hertz - 1) / hertz
      delay = min(delay ?? .max, time - fraction)
    }
    return delay
  }

  private func seconds(_ nanoseconds: Int64) -> Int64 {
    nanoseconds.flooredDivision(by: Self.nanoseconds).quotient
  }

  private mutating func raise(_ flag: RegisterC) { self[Register.c] |= flag.rawValue }

  private var periodicHertz: Int64? {
    let rate = Int64(registerA.rateSelect)
    guard rate != 0 else { return nil }
    // Rates 1 and 2 repeat 8 and 9: 256 Hz and 128 Hz.
    return 32768 >> ((rate < 3 ? rate + 7 : rate) - 1)
  }

  // How many periods of the rate in A (table 5, 32.768 kHz) have passed since 1970.
  private func periods(at now: Int64) -> Int64 {
    guard let hertz = periodicHertz else { return 0 }
    let (seconds, fraction) = now.flooredDivision(by: Self.nanoseconds)
    return seconds * hertz + fraction * hertz / Self.nanoseconds
  }

  // Whether one of the last `count` seconds up to `end` was the alarm's. Steps over whole hours and
  // minutes, for a guest may look after a day, or a thousand times a second.
  private func alarmMatches(within count: Int64, before end: Int64) -> Bool {
    let hours = self[Register.hoursAlarm]
    let minutes = self[Register.minutesAlarm]
    let seconds = self[Register.secondsAlarm]
    guard seconds >= 0xC0 || decode(seconds) < 60 else { return false }
    // All times of day recur after one.
    var time = end - min(count, 86400) + 1
    while time <= end {
      let second = time.flooredDivision(by: 86400).remainder
      if !matches(hours, decodeHour(hours), second / 3600) {
        time += 3600 - second % 3600
      } else if !matches(minutes, decode(minutes), second / 60 % 60) {
        time += 60 - second % 60
      } else if !matches(seconds, decode(seconds), second % 60) {
        time += 1
      } else {
        return true
      }
    }
    return false
  }

  // 0xC0 to 0xFF match always.
  private func matches(_ alarm: UInt8, _ decoded: Int64, _ time: Int64) -> Bool {
    alarm >= 0xC0 || decoded == time
  }
}

// MARK: - Formats

extension RealTimeClockState {
  // The time in the registers, in the format that B selects.
  private var time: CivilTime {
    get {
      CivilTime(
        year: decode(self[Register.century]) * 100 + decode(self[Register.year]),
        month: decode(self[Register.month]), day: decode(self[Register.dayOfMonth]),
        hour: decodeHour(self[Register.hours]), minute: decode(self[Register.minutes]),
        second: decode(self[Register.seconds]))
    }
    set {
      let (century, year) = newValue.year.flooredDivision(by: 100)
      self[Register.century] = encode(century)
      self[Register.year] = encode(year)
      self[Register.month] = encode(newValue.month)
      self[Register.dayOfMonth] = encode(newValue.day)
      self[Register.dayOfWeek] = encode(newValue.dayOfWeek)
      self[Register.hours] = encodeHour(newValue.hour)
      self[Register.minutes] = encode(newValue.minute)
      self[Register.seconds] = encode(newValue.second)
    }
  }

  // Any byte decodes to something: digits above 9 count as they are.
  private func decode(_ byte: UInt8) -> Int64 {
    registerB.contains(.dm) ? Int64(byte) : Int64(byte >> 4) * 10 + Int64(byte & 0x0F)
  }

  private func encode(_ value: Int64) -> UInt8 {
    let encoded = registerB.contains(.dm) ? value : (value / 10) << 4 | value % 10
    return UInt8(truncatingIfNeeded: encoded)
  }

  // With 12 hours, bit 7 says PM and 12 comes before 1.
  private func decodeHour(_ byte: UInt8) -> Int64 {
    if registerB.contains(.hours24) { return decode(byte) }
    return decode(byte & 0x7F) % 12 + (byte & 0x80 != 0 ? 12 : 0)
  }

  private func encodeHour(_ hour: Int64) -> UInt8 {
    if registerB.contains(.hours24) { return encode(hour) }
    let hour12 = encode(hour % 12 == 0 ? 12 : hour % 12)
    return hour >= 12 ? hour12 | 0x80 : hour12
  }
}

// MARK: - What firmware puts into CMOS RAM

extension RealTimeClockState {
  // As Bochs' and QEMU's firmware expects; Ralf Brown's list of CMOS locations has the first six.
  private mutating func store(_ sizes: RealTimeClock.MachineSizes) {
    let low = sizes.ramBelow4GiB
    let baseKiB = min(low >> 10, 640)
    let extendedKiB = low > 1 << 20 ? min((low - 1 << 20) >> 10, 0xFFFF) : 0
    let above16MiB = low > 16 << 20 ? min((low - 16 << 20) >> 16, 0xFFFF) : 0
    // Equipment: a floating-point unit.
    self[0x14] = 0x02
    store(baseKiB, at: [0x15, 0x16])
    store(extendedKiB, at: [0x17, 0x18])
    store(extendedKiB, at: [0x30, 0x31])
    store(above16MiB, at: [0x34, 0x35])
    store(min(sizes.ramAbove4GiB >> 16, 0xFF_FFFF), at: [0x5B, 0x5C, 0x5D])
    self[0x5F] = UInt8(clamping: sizes.cpuCount - 1)
  }

  private mutating func store(_ value: UInt64, at places: [UInt8]) {
    for (place, shift) in zip(places, stride(from: 0, through: 16, by: 8)) {
      self[place] = UInt8(truncatingIfNeeded: value >> UInt64(shift))
    }
  }
}

// MARK: - State

extension RealTimeClockState {
  /// What RESET does.
  mutating func reset() {
    index = 0
    let enables: RegisterB = [.pie, .aie, .uie, .sqwe]
    self[Register.b] = registerB.subtracting(enables).rawValue
    self[Register.c] = 0
  }

  func save(to state: inout StateWriter) {
    state.write("index", index)
    state.write("bytes", bytes.indices.map { bytes[$0] })
    state.write("advanced-to", lastAdvance)
  }

  init(_ state: StateReader) throws(StateError) {
    index = try state.read("index", in: 0...0x7F)
    lastAdvance = try state.read("advanced-to")
    for (index, byte) in try state.readBytes("bytes", count: bytes.count).enumerated() {
      bytes[index] = byte
    }
    let isB = !registerB.isSuperset(of: [.set, .uie])
    let isC = RegisterC(rawValue: self[Register.c]).isSubset(of: .kept)
    guard !registerA.contains(.uip), isB, isC, self[Register.d] == Self.vrt else {
      throw .impossible("bytes")
    }
  }
}
