import Devices
import Synchronization
import TestSupport
import Testing

/// A clock that stands still until it is set.
private final class ManualClock: Sendable {
  private let value = Atomic<UInt64>(1_000_000)

  var nanoseconds: UInt64 { value.load(ordering: .relaxed) }

  func advance(by nanoseconds: UInt64) { value.add(nanoseconds, ordering: .relaxed) }
}

@Suite(.limited) struct PowerManagementTests {
  private let machine = RecordingMachine()
  private let line = RecordingLine()
  private let clock = ManualClock()
  private let device: PowerManagement

  private static let status: UInt64 = 0
  private static let enable: UInt64 = 2
  private static let control: UInt64 = 4
  private static let timer: UInt64 = 8
  private static let powerButton: UInt64 = 1 << 8

  init() {
    let clock = clock
    device = PowerManagement(machine: machine, line: line, now: { clock.nanoseconds })
  }

  @Test func `the machine is in ACPI mode, and stays there`() {
    #expect(device.read(offset: Self.control, width: 2) == 1)
    device.write(offset: Self.control, width: 2, value: 0)
    #expect(device.read(offset: Self.control, width: 2) == 1)
  }

  @Test func `SLP_EN with the type of S5 switches the power off`() {
    device.write(offset: Self.control, width: 2, value: 0)
    #expect(machine.requests == [])
    device.write(offset: Self.control, width: 2, value: 1 << 13)
    #expect(machine.requests == [.powerOff])
    #expect(device.read(offset: Self.control, width: 2) == 1)
  }

  @Test func `a byte to the control register's upper half does as well`() {
    device.put(0x20, Self.control + 1)
    #expect(machine.requests == [.powerOff])
  }

  @Test func `SLP_EN with the type of S3 suspends, and waking up shows in the status`() {
    device.write(offset: Self.control, width: 2, value: 1 << 13 | 1 << 10)
    #expect(machine.requests == [.suspend])
    #expect(!device.clockMayWake)
    device.write(offset: Self.enable, width: 2, value: 1 << 10)
    #expect(device.clockMayWake)
    device.wakeByClock()
    #expect(device.read(offset: Self.status, width: 2) == 1 << 15 | 1 << 10)
    device.write(offset: Self.status, width: 2, value: 1 << 15)
    #expect(device.read(offset: Self.status, width: 2) == 1 << 10)
  }

  @Test func `other types of sleep do nothing, and are read back`() {
    device.write(offset: Self.control, width: 2, value: 1 << 13 | 5 << 10 | 2)
    #expect(machine.requests == [])
    #expect(device.read(offset: Self.control, width: 2) == 5 << 10 | 2 | 1)
  }

  @Test func `the power button is an SCI when enabled, until its status is written`() {
    device.pressPowerButton()
    #expect(device.read(offset: Self.status, width: 2) == Self.powerButton)
    #expect(line.levels == [])
    device.write(offset: Self.enable, width: 2, value: Self.powerButton)
    #expect(line.levels == [true])
    device.write(offset: Self.status, width: 2, value: 0xFFFF & ~Self.powerButton)
    #expect(line.levels == [true])
    device.write(offset: Self.status, width: 2, value: Self.powerButton)
    #expect(line.levels == [true, false])
    #expect(device.read(offset: Self.status, width: 2) == 0)
  }

  @Test func `32 bits reach status and enable alike`() {
    device.pressPowerButton()
    device.write(
      offset: Self.status, width: 4, value: Self.powerButton << 16 | Self.powerButton)
    #expect(device.read(offset: Self.status, width: 4) == Self.powerButton << 16)
    #expect(line.levels == [])
  }

  @Test func `events that the machine doesn't have can't be enabled`() {
    device.write(offset: Self.enable, width: 2, value: 0xFFFF)
    #expect(device.read(offset: Self.enable, width: 2) == 0x0521)
  }

  @Test func `the timer counts 3579545 times a second in 24 bits`() {
    #expect(device.read(offset: Self.timer, width: 4) == 0)
    clock.advance(by: 1_000_000_000)
    #expect(device.read(offset: Self.timer, width: 4) == 3_579_545)
    clock.advance(by: 9_000_000_000)
    #expect(device.read(offset: Self.timer, width: 4) == 35_795_450 % (1 << 24))
    #expect(device.byte(Self.timer + 1) == UInt8(35_795_450 >> 8 & 0xFF))
    device.write(offset: Self.timer, width: 4, value: 0)
    #expect(device.read(offset: Self.timer, width: 4) == 35_795_450 % (1 << 24))
  }

  @Test func `the timer stays right for a hundred years`() {
    clock.advance(by: 100 * 365 * 86400 * 1_000_000_000)
    let ticks = (UInt64(100 * 365 * 86400) * 3_579_545) % (1 << 24)
    #expect(device.read(offset: Self.timer, width: 4) == ticks)
  }

  @Test func `a change of the timer's highest bit is an event`() {
    device.write(offset: Self.enable, width: 2, value: 1)
    clock.advance(by: 2_300_000_000)
    #expect(device.read(offset: Self.status, width: 2) == 0)
    clock.advance(by: 100_000_000)
    #expect(device.read(offset: Self.status, width: 2) == 1)
    #expect(line.levels == [true])
    device.write(offset: Self.status, width: 2, value: 1)
    #expect(line.levels == [true, false])
    #expect(device.read(offset: Self.status, width: 2) == 0)
  }

  @Test func `between and behind the registers are ones`() {
    #expect(device.read(offset: 6, width: 2) == 0xFFFF)
    #expect(device.byte(12) == 0xFF)
  }
}
