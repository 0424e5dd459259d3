import Devices
import TestSupport
import Testing

@Suite(.limited) struct GeneralPurposeEventsTests {
  private let line = RecordingLine()
  private let device: GeneralPurposeEvents
  private static let enable: UInt64 = 2

  init() { device = GeneralPurposeEvents(line: line) }

  @Test func `an event shows in the status, and raises the SCI once it is enabled`() {
    device.raise(13)
    #expect(device.read(offset: 0, width: 4) == 1 << 13)
    #expect(line.levels == [])
    device.write(offset: Self.enable, width: 2, value: 1 << 13 | 1)
    #expect(device.read(offset: 0, width: 4) == 0x2001_2000)
    #expect(line.levels == [true])
  }

  @Test func `ones clear the status, and the line falls with the last event that is enabled`() {
    device.write(offset: Self.enable, width: 1, value: 0xFF)
    device.raise(5)
    device.raise(2)
    device.write(offset: 0, width: 1, value: 1 << 5)
    #expect(device.read(offset: 0, width: 1) == 1 << 2)
    #expect(line.levels == [true])
    device.write(offset: 0, width: 1, value: 0xFF)
    #expect(line.levels == [true, false])
  }
}
