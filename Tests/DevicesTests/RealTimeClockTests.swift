import Synchronization
import TestSupport
import Testing

@testable import Devices

/// A wall clock that stands where it is put.
private final class HandClock: Sendable {
  private let time: Atomic<Int64>

  init(_ seconds: Int64) { time = Atomic(seconds * 1_000_000_000) }

  var now: Int64 { time.load(ordering: .relaxed) }

  func pass(seconds: Int64 = 0, nanoseconds: Int64 = 0) {
    time.add(seconds * 1_000_000_000 + nanoseconds, ordering: .relaxed)
  }
}

// 2024-02-29 23:59:58 UTC, a Thursday.
private let leapDay: Int64 = 1_709_251_198

@Suite(.limited) struct RealTimeClockTests {
  private let clock = HandClock(leapDay)
  private let rtc: RealTimeClock

  init() {
    rtc = Self.makeClock(clock)
  }

  private static func makeClock(
    _ clock: HandClock, below: UInt64 = 128 << 20, above: UInt64 = 0, cpus: Int = 1
  ) -> RealTimeClock {
    RealTimeClock(
      sizes: .init(ramBelow4GiB: below, ramAbove4GiB: above, cpuCount: cpus), now: { clock.now })
  }

  private func get(_ index: UInt8) -> UInt8 {
    rtc.put(index, 0)
    return rtc.byte(1)
  }

  private func set(_ index: UInt8, _ value: UInt8) {
    rtc.put(index, 0)
    rtc.put(value, 1)
  }

  // Century, year, month, day, hour, minute, second.
  private var shown: [UInt8] { [0x32, 9, 8, 7, 4, 2, 0].map { get($0) } }

  @Test func `the time shows in BCD and 24 hours, as firmware leaves it`() {
    #expect(shown == [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58])
    // Thursday.
    #expect(get(6) == 5)
    #expect([0x0A, 0x0B, 0x0C, 0x0D].map { get($0) } == [0x26, 0x02, 0x00, 0x80])
  }

  @Test func `the leap day ends when its last second has passed`() {
    clock.pass(seconds: 2)

    #expect(shown == [0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00])
    #expect(get(6) == 6)
  }

  @Test func `binary mode shows the same time`() {
    set(0x0B, 0x06)

    #expect(shown == [20, 24, 2, 29, 23, 59, 58])
  }

  @Test(arguments: [
    (0 as Int64, 0x12 as UInt8), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91),
  ])
  func `with 12 hours midnight and noon are 12 and bit 7 says PM`(hour: Int64, shown: UInt8) {
    clock.pass(seconds: 2 + hour * 3600)
    set(0x0B, 0x00)

    #expect(get(4) == shown)
    clock.pass(seconds: 3600)
    clock.pass(seconds: -3600)
    #expect(get(4) == shown)
  }

  @Test func `bit 7 of the index masks NMIs and selects nothing`() {
    #expect(get(0x80 | 0x09) == 0x24)
    #expect(rtc.byte(0) == 0xFF)
  }

  @Test func `while SET is on the time stands still and can be set, and then runs on from there`() {
    set(0x0B, 0x82)
    for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31)] as [(UInt8, UInt8)] {
      set(index, value)
    }
    clock.pass(seconds: 100)
    #expect(shown == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58])
    set(0x0B, 0x02)

    clock.pass(seconds: 2)

    #expect(shown == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00])
    #expect(get(6) == 7)
  }

  @Test func `fields set one by one while the time runs keep their values until the next second`() {
    set(7, 0x31)
    set(8, 0x05)
    #expect(shown == [0x20, 0x24, 0x05, 0x31, 0x23, 0x59, 0x58])

    clock.pass(seconds: 3)

    #expect(shown == [0x20, 0x24, 0x06, 0x01, 0x00, 0x00, 0x01])
  }

  @Test func `a divider in reset stops the time`() {
    set(0x0A, 0x76)

    clock.pass(seconds: 10)

    #expect(get(0) == 0x58)
    #expect(get(0x0A) == 0x76)
  }

  @Test func `UIP shows in the last 244 microseconds of a second`() {
    clock.pass(nanoseconds: 999_700_000)
    #expect(get(0x0A) == 0x26)
    clock.pass(nanoseconds: 100_000)
    #expect(get(0x0A) == 0xA6)
    set(0x0B, 0x82)
    #expect(get(0x0A) == 0x26)
  }

  @Test func `the update flag shows once a second has ended, and reading clears it`() {
    #expect(get(0x0C) & 0x10 == 0)
    clock.pass(seconds: 1)

    #expect(get(0x0C) & 0x10 == 0x10)
    #expect(get(0x0C) & 0x10 == 0)
  }

  @Test func `IRQF shows with a flag whose enable bit is set, and SET takes UIE back`() {
    set(0x0B, 0x12)
    clock.pass(seconds: 1)
    #expect(get(0x0C) & 0x90 == 0x90)

    set(0x0B, 0x92)

    #expect(get(0x0B) == 0x82)
  }

  @Test func `the periodic flag comes at the rate in A, and not without one`() {
    // Rate 15: every half second.
    set(0x0A, 0x2F)
    _ = get(0x0C)
    clock.pass(nanoseconds: 400_000_000)
    #expect(get(0x0C) == 0x00)
    clock.pass(nanoseconds: 100_000_000)
    #expect(get(0x0C) == 0x40)

    set(0x0A, 0x20)
    clock.pass(nanoseconds: 400_000_000)

    #expect(get(0x0C) == 0x00)
  }

  @Test func `the alarm goes off at its time, also when nobody looked at that second`() {
    for (index, value) in [(1, 0x30), (3, 0x00), (5, 0x00)] as [(UInt8, UInt8)] {
      set(index, value)
    }
    clock.pass(seconds: 31)
    #expect(get(0x0C) & 0x20 == 0)
    clock.pass(seconds: 20)

    #expect(get(0x0C) & 0x20 == 0x20)
    clock.pass(seconds: 86_000)
    #expect(get(0x0C) & 0x20 == 0)
  }

  @Test func `an alarm wakes a machine where it is enabled, until register C is read`() {
    for register in [0x01, 0x03, 0x05] as [UInt8] { set(register, 0xC0) }
    clock.pass(seconds: 1)
    #expect(!rtc.hasAlarm)
    set(0x0B, 0x22)
    #expect(rtc.hasAlarm)
    _ = get(0x0C)
    #expect(!rtc.hasAlarm)
    clock.pass(seconds: 1)
    #expect(rtc.hasAlarm)
  }

  @Test func `an alarm of don't-cares goes off every second`() {
    for index: UInt8 in [1, 3, 5] { set(index, 0xFF) }
    clock.pass(seconds: 1)

    #expect(get(0x0C) & 0x20 == 0x20)
  }

  @Test func `C and D can't be written, and what is left is RAM`() {
    set(0x0C, 0xFF)
    set(0x0D, 0x00)
    set(0x0F, 0x5A)
    set(0x7F, 0xA5)

    #expect([0x0C, 0x0D, 0x0F, 0x7F].map { get($0) } == [0x00, 0x80, 0x5A, 0xA5])
  }

  @Test(arguments: [0x00 as UInt8, 0x02, 0x04, 0x06])
  func `any bytes in the time registers are survived`(format: UInt8) {
    for value: UInt8 in [0x00, 0x0F, 0x99, 0xFF] {
      set(0x0B, 0x80 | format)
      for index: UInt8 in [0, 2, 4, 6, 7, 8, 9, 0x32] { set(index, value) }
      set(0x0B, format)
      clock.pass(seconds: 1)
      let month = get(8)

      #expect(month >= 1 && month <= 0x12)
    }
  }

  @Test func `firmware finds the machine's memory and CPUs`() {
    let rtc = Self.makeClock(clock, below: 3 << 30, above: 5 << 30, cpus: 4)
    func word(_ low: UInt8, _ high: UInt8) -> Int {
      rtc.put(high, 0)
      let upper = Int(rtc.byte(1))
      rtc.put(low, 0)
      return upper << 8 | Int(rtc.byte(1))
    }

    #expect(word(0x15, 0x16) == 640)
    #expect(word(0x17, 0x18) == 0xFFFF)
    #expect(word(0x30, 0x31) == 0xFFFF)
    #expect(word(0x34, 0x35) == (3 << 30 - 16 << 20) >> 16)
    #expect(word(0x5B, 0x5C) == (5 << 30) >> 16 & 0xFFFF)
    #expect(word(0x5D, 0x5F) == 3 << 8 | (5 << 30) >> 32)
  }

  @Test func `a machine with little memory has no more than it has`() {
    let rtc = Self.makeClock(clock, below: 512 << 10)
    let values = [0x15, 0x16, 0x17, 0x18, 0x34, 0x35, 0x5B].map { (index: UInt8) in
      rtc.put(index, 0)
      return rtc.byte(1)
    }

    #expect(values == [0x00, 0x02, 0, 0, 0, 0, 0])
  }
}

@Suite(.limited) struct CivilTimeTests {
  @Test func `every day from 1970 to 2399 follows the one before`() {
    let lengths: [Int64] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    var expected = CivilTime(year: 1970, month: 1, day: 1, hour: 12, minute: 34, second: 56)
    var seconds: Int64 = 12 * 3600 + 34 * 60 + 56
    var mistakes = 0
    while expected.year < 2400 {
      let time = CivilTime(secondsSince1970: seconds)
      if time != expected || time.secondsSince1970 != seconds { mistakes += 1 }
      let year = expected.year
      let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
      let length = lengths[Int(expected.month - 1)] + (isLeap && expected.month == 2 ? 1 : 0)
      expected.day += 1
      if expected.day > length { (expected.day, expected.month) = (1, expected.month + 1) }
      if expected.month > 12 { (expected.month, expected.year) = (1, year + 1) }
      seconds += 86400
    }

    #expect(mistakes == 0)
  }

  @Test func `known days of the week`() {
    func day(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
      CivilTime(year: year, month: month, day: day, hour: 0, minute: 0, second: 0).dayOfWeek
    }

    // Thursday, Saturday, Tuesday, Thursday, Friday.
    let days = [
      day(1970, 1, 1), day(2000, 1, 1), day(2000, 2, 29), day(2024, 2, 29), day(2399, 12, 31),
    ]
    #expect(days == [5, 7, 3, 5, 6])
  }

  @Test func `fields out of range carry over`() {
    let time = CivilTime(year: 2023, month: 14, day: 31, hour: 25, minute: 61, second: 61)

    #expect(
      CivilTime(secondsSince1970: time.secondsSince1970)
        == CivilTime(year: 2024, month: 3, day: 3, hour: 2, minute: 2, second: 1))
  }
}

/// What a clock asks for, and its interrupt.
private final class ClockRig {
  let clock = HandClock(leapDay)
  let line = RecordingLine()
  let rtc: RealTimeClock
  private let delays = Delays()

  private final class Delays: Sendable {
    let last = Atomic<Int64>(-1)
  }

  init() {
    let (clock, delays) = (clock, delays)
    rtc = RealTimeClock(
      sizes: .init(ramBelow4GiB: 1 << 20, ramAbove4GiB: 0, cpuCount: 1), line: line,
      now: { clock.now }, schedule: { delays.last.store($0 ?? -1, ordering: .relaxed) })
  }

  /// The nanoseconds that it last asked to wait; nil if it asked for nothing.
  var delay: Int64? {
    let last = delays.last.load(ordering: .relaxed)
    return last < 0 ? nil : last
  }

  func set(_ index: UInt8, _ value: UInt8) {
    rtc.put(index, 0)
    rtc.put(value, 1)
  }

  func takeFlags() -> UInt8 {
    rtc.put(0x0C, 0)
    return rtc.byte(1)
  }

  /// Lets the time pass that it asked for.
  func wait() throws {
    clock.pass(nanoseconds: try #require(delay))
    rtc.tick()
  }
}

@Suite(.limited) struct RealTimeClockInterruptTests {
  private let rig = ClockRig()

  @Test func `a clock whose interrupts are off waits for nothing`() {
    rig.clock.pass(seconds: 5)
    _ = rig.takeFlags()
    rig.set(0x0A, 0x2A)
    #expect(rig.delay == nil && !rig.line.isRaised)
  }

  @Test func `periodic interrupts come at the rate of A, each until C is read`() throws {
    rig.set(0x0A, 0x26)
    rig.set(0x0B, 0x42)
    #expect(rig.delay == 976_563, "1024 Hz")
    for _ in 0..<3 {
      try rig.wait()
      #expect(rig.line.isRaised)
      #expect(rig.delay == nil, "there is no other before C is read")
      #expect(rig.takeFlags() & 0xC0 == 0xC0)
      #expect(!rig.line.isRaised)
    }
    #expect(rig.line.edges == 3)
    rig.set(0x0B, 0x02)
    #expect(rig.delay == nil)
  }

  @Test func `the end of an update interrupts at the next second`() throws {
    rig.clock.pass(nanoseconds: 300_000_000)
    rig.set(0x0B, 0x12)
    #expect(rig.delay == 700_000_000)
    try rig.wait()
    #expect(rig.line.isRaised && rig.takeFlags() & 0x90 == 0x90)
  }

  @Test func `the alarm interrupts at its second, and not before`() throws {
    for (index, value) in [(1, 0x01), (3, 0x00), (5, 0x00)] as [(UInt8, UInt8)] {
      rig.set(index, value)
    }
    rig.set(0x0B, 0x22)
    try rig.wait()
    try rig.wait()
    #expect(!rig.line.isRaised)
    try rig.wait()
    #expect(rig.line.isRaised && rig.takeFlags() & 0xA0 == 0xA0)
  }

  @Test func `a flag that is there already interrupts when it is enabled`() {
    rig.clock.pass(seconds: 1)
    rig.rtc.tick()
    #expect(!rig.line.isRaised)
    rig.set(0x0B, 0x12)
    #expect(rig.line.isRaised)
    rig.set(0x0B, 0x02)
    #expect(!rig.line.isRaised)
  }
}

@Suite(.limited) struct RealTimeClockStateTests {
  private func get(_ rig: ClockRig, _ index: UInt8) -> UInt8 {
    rig.rtc.put(index, 0)
    return rig.rtc.byte(1)
  }

  /// Hours, minutes, seconds.
  private func time(_ rig: ClockRig) -> [UInt8] { [4, 2, 0].map { get(rig, $0) } }

  private func saved(_ rig: ClockRig) throws -> StateReader {
    var state = StateWriter()
    rig.rtc.save(to: &state)
    return try StateReader(state.bytes)
  }

  @Test func `a reset keeps the time that the guest set, the alarm, formats and CMOS RAM`() {
    let rig = ClockRig()
    rig.set(0x0A, 0x2A)
    rig.set(0x0B, 0x06)
    let set: [(UInt8, UInt8)] = [(0, 10), (2, 20), (4, 7), (8, 12), (1, 0x55), (0x40, 0xA5)]
    for (index, value) in set { rig.set(index, value) }
    rig.clock.pass(seconds: 2)

    rig.rtc.reset()
    rig.clock.pass(seconds: 3)

    #expect(time(rig) == [7, 20, 15])
    #expect([8, 1, 0x40, 0x0A, 0x0B].map { get(rig, $0) } == [12, 0x55, 0xA5, 0x2A, 0x06])
    #expect(get(rig, 0x0D) == 0x80)
  }

  @Test func `a reset switches interrupts off and clears their flags`() throws {
    let rig = ClockRig()
    rig.set(0x0B, 0x7A)
    try rig.wait()
    #expect(rig.line.isRaised)

    rig.rtc.reset()

    #expect(!rig.line.isRaised && rig.delay == nil)
    #expect(rig.takeFlags() == 0)
    #expect(get(rig, 0x0B) == 0x02)
    rig.rtc.put(0x0E, 0)
    rig.rtc.reset()
    #expect(rig.rtc.byte(1) == time(rig)[2], "the index is the seconds'")
  }

  @Test func `a restored clock goes on as if no time had passed`() throws {
    let (rig, other) = (ClockRig(), ClockRig())
    rig.set(0x0B, 0x12)
    rig.clock.pass(nanoseconds: 300_000_000)
    let state = try saved(rig)
    other.clock.pass(seconds: 3600)

    try other.rtc.restore(from: state)

    #expect(time(other) == [0x23, 0x59, 0x58])
    #expect(other.delay == 700_000_000, "the update's interrupt comes when it was to come")
    try other.wait()
    #expect(other.line.isRaised)
    #expect(time(other) == [0x23, 0x59, 0x59])
  }

  @Test func `or it counts how long it was away, and the alarm has come meanwhile`() throws {
    let (rig, other) = (ClockRig(), ClockRig())
    for (index, value) in [(1, 0x30), (3, 0xFF), (5, 0xFF)] as [(UInt8, UInt8)] {
      rig.set(index, value)
    }
    rig.set(0x0B, 0x22)
    let state = try saved(rig)
    other.clock.pass(seconds: 3600)

    let absence = try other.rtc.restore(from: state, countingAbsence: true)

    #expect(absence == 3_600_000_000_000)
    #expect(time(other) == [0x00, 0x59, 0x58])
    other.rtc.tick()
    #expect(other.line.isRaised && other.takeFlags() & 0xA0 == 0xA0)
  }
}
