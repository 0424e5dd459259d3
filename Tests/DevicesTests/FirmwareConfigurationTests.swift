import Devices
import TestSupport
import Testing

@Suite(.limited) struct FirmwareConfigurationTests {
  private let device = FirmwareConfiguration(
    ramSize: 6 << 30, cpuCount: 300, items: [.init(key: 0x8001, bytes: [1, 2, 3])],
    files: [
      .init(name: "etc/a", number: 0xBBAA as UInt16),
      .init(name: String(repeating: "x", count: 100), bytes: []),
    ])

  private func item(_ key: UInt64, _ count: Int) -> [UInt8] {
    device.write(offset: 0, width: 2, value: key)
    return (0..<count).map { _ in device.byte(1) }
  }

  @Test func `a guest finds the device by its signature, even without selecting it`() {
    #expect((0..<4).map { _ in device.byte(1) } == Array("QEMU".utf8))
    #expect(item(0, 6) == Array("QEMU".utf8) + [0, 0])
  }

  @Test func `there is no DMA`() { #expect(item(1, 4) == [1, 0, 0, 0]) }

  @Test func `memory and CPUs are as the machine has them`() {
    #expect(item(3, 8) == [0, 0, 0, 0x80, 1, 0, 0, 0])
    #expect(item(5, 2) == [0x2C, 0x01])
    #expect(item(0xF, 2) == [0x2C, 0x01])
  }

  @Test func `unknown items read zero`() {
    #expect(item(0x11, 8) == [UInt8](repeating: 0, count: 8))
    #expect(item(0xFFFF, 1) == [0])
  }

  @Test func `further items are there`() { #expect(item(0x8001, 4) == [1, 2, 3, 0]) }

  @Test func `the directory leads to the files`() {
    let directory = item(0x19, 4 + 2 * 64)
    #expect(Array(directory[..<4]) == [0, 0, 0, 2])
    #expect(Array(directory[4..<12]) == [0, 0, 0, 2, 0, 0x20, 0, 0])
    #expect(Array(directory[12..<68]) == Array("etc/a".utf8) + [UInt8](repeating: 0, count: 51))
    #expect(Array(directory[68..<76]) == [0, 0, 0, 0, 0, 0x21, 0, 0])
    #expect(directory.last == 0)
    #expect(item(0x20, 3) == [0xAA, 0xBB, 0])
  }

  @Test func `a string instruction reads an item at once`() {
    device.write(offset: 0, width: 2, value: 0)
    var bytes = [UInt8](repeating: 0xFF, count: 6)
    var span = bytes.mutableSpan
    device.read(offset: 1, width: 1, into: &span)
    #expect(bytes == Array("QEMU".utf8) + [0, 0])
  }

  @Test func `only 16 bits at the first port select`() throws {
    var bus = Bus()
    try bus.add(device, at: 0x510, count: 2)
    bus.write(0x510, width: 2, value: 5)
    bus.write(0x510, width: 1, value: 0)
    bus.write(0x511, width: 1, value: 0)
    bus.write(0x511, width: 2, value: 0)
    #expect(bus.read(0x511, width: 1) == 0x2C)
    #expect(bus.read(0x510, width: 1) == 0x01)
    #expect(bus.read(0x510, width: 2) == 0xFFFF)
  }
}
