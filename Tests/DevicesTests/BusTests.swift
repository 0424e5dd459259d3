import Devices
import TestSupport
import Testing

@Suite(.limited) struct BusTests {
  @Test func `reads nobody claims give all ones of their width`() {
    let bus = Bus()

    #expect(bus.read(0x300, width: 1) == 0xFF)
    #expect(bus.read(0x300, width: 2) == 0xFFFF)
    #expect(bus.read(0x300, width: 4) == 0xFFFF_FFFF)
    #expect(bus.read(0x300, width: 8) == UInt64.max)
  }

  @Test func `a device sees offsets from its own start`() throws {
    let device = RecordingDevice()
    var bus = Bus()
    try bus.add(device, at: 0x3F8, count: 8)

    bus.write(0x3FB, width: 1, value: 0x80)

    #expect(device.accesses == [.init(offset: 3, width: 1, value: 0x80)])
  }

  @Test func `look-up finds a device at its first and last address only`() throws {
    var bus = Bus()
    try bus.add(RecordingDevice(), at: 0x60, count: 1)
    try bus.add(RecordingDevice(), at: 0x64, count: 1)
    try bus.add(RecordingDevice(), at: 0x3F8, count: 8)
    try bus.add(RecordingDevice(), at: UInt64.max - 3, count: 4)

    let found = [0x5F, 0x60, 0x61, 0x63, 0x64, 0x65, 0x3F7, 0x3F8, 0x3FF, 0x400].map {
      bus.index(of: $0)
    }

    #expect(found == [-1, 0, -1, -1, 1, -1, -1, 2, 2, -1])
    #expect(bus.index(of: UInt64.max) == 3)
    #expect(bus.index(of: UInt64.max - 4) == -1)
  }

  @Test func `devices stand in order of their addresses however they are added`() throws {
    var bus = Bus()
    for start: UInt64 in [0x80, 0x20, 0xF4, 0x60] {
      try bus.add(RecordingDevice(), at: start, count: 4)
    }

    #expect(bus.slots.map(\.start) == [0x20, 0x60, 0x80, 0xF4])
    #expect(bus.slots.map(\.last) == [0x23, 0x63, 0x83, 0xF7])
  }

  @Test(arguments: [
    (0x2F8 as UInt64, 8 as UInt64), (0x2F0, 9), (0x2FF, 1), (0x2FA, 2), (0, 0x1000),
  ])
  func `two devices at one address are refused by name`(start: UInt64, count: UInt64) throws {
    var bus = Bus()
    try bus.add(RecordingDevice("com2"), at: 0x2F8, count: 8)

    let error = #expect(throws: Bus.Overlap.self) {
      try bus.add(RecordingDevice("other"), at: start, count: count)
    }

    #expect(error?.description == "other would overlap com2 on the bus")
    #expect(bus.slots.count == 1)
  }

  @Test func `neighbours that only touch are welcome`() throws {
    var bus = Bus()
    try bus.add(RecordingDevice(), at: 0x2F8, count: 8)
    try bus.add(RecordingDevice(), at: 0x300, count: 1)
    try bus.add(RecordingDevice(), at: 0x2F7, count: 1)

    #expect(bus.slots.count == 3)
  }

  @Test func `a wide access to a byte-wide device goes byte by byte, low first`() throws {
    let device = RecordingDevice()
    var bus = Bus()
    try bus.add(device, at: 0x100, count: 8)

    bus.write(0x100, width: 4, value: 0x4433_2211)

    #expect(
      device.accesses == [
        .init(offset: 0, width: 1, value: 0x11), .init(offset: 1, width: 1, value: 0x22),
        .init(offset: 2, width: 1, value: 0x33), .init(offset: 3, width: 1, value: 0x44),
      ])
    #expect(bus.read(0x102, width: 2) == 0x1312)
  }

  @Test func `a device gets pieces as wide as it takes`() throws {
    let device = RecordingDevice(widestAccess: 4)
    var bus = Bus()
    try bus.add(device, at: 0x1000, count: 16)

    bus.write(0x1000, width: 8, value: 0x8877_6655_4433_2211)

    #expect(
      device.accesses == [
        .init(offset: 0, width: 4, value: 0x4433_2211),
        .init(offset: 4, width: 4, value: 0x8877_6655),
      ])
    #expect(bus.read(0x1000, width: 8) == 0x1716_1514_1312_1110)
  }

  @Test func `a 64-bit device gets 64 bits whole`() throws {
    let device = RecordingDevice(widestAccess: 8)
    var bus = Bus()
    try bus.add(device, at: 0xD000_0000, count: 0x1000)

    bus.write(0xD000_0008, width: 8, value: UInt64.max)

    #expect(device.accesses == [.init(offset: 8, width: 8, value: UInt64.max)])
  }

  @Test func `an access across the end of a device reads ones beyond it`() throws {
    let device = RecordingDevice(widestAccess: 4)
    var bus = Bus()
    try bus.add(device, at: 0x100, count: 2)

    #expect(bus.read(0x101, width: 2) == 0xFF11)
    #expect(bus.read(0x100, width: 4) == 0xFFFF_1110)
    #expect(bus.read(0xFF, width: 2) == 0x10FF)
    #expect(bus.read(0xFE, width: 4) == 0x1110_FFFF)
  }

  @Test func `an access across two devices reaches both with their own bytes`() throws {
    let low = RecordingDevice("low", widestAccess: 4)
    let high = RecordingDevice("high", widestAccess: 4)
    var bus = Bus()
    try bus.add(low, at: 0x100, count: 2)
    try bus.add(high, at: 0x102, count: 2)

    bus.write(0x100, width: 4, value: 0xAABB_CCDD)

    #expect(low.accesses == [.init(offset: 0, width: 2, value: 0xCCDD)])
    #expect(high.accesses == [.init(offset: 0, width: 2, value: 0xAABB)])
    #expect(bus.read(0x101, width: 2) == 0x1011)
  }

  @Test func `a wide write past a device's end drops only the bytes beyond`() throws {
    let device = RecordingDevice(widestAccess: 4)
    var bus = Bus()
    try bus.add(device, at: 0x100, count: 1)

    bus.write(0xFE, width: 8, value: 0x8877_6655_4433_2211)

    #expect(device.accesses == [.init(offset: 0, width: 1, value: 0x33)])
  }
}
