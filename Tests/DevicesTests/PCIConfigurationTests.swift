import Devices
import TestSupport
import Testing

@Suite(.limited) struct PCIConfigurationTests {
  private let bus: PCITestBus

  init() throws { bus = try PCITestBus() }

  @Test func `where no function is, both mechanisms read ones of every width`() {
    for width in [1, 2, 4] {
      let ones = UInt64.max >> UInt64(64 - width * 8)
      #expect(bus.config(9, 0, width: width) == ones)
      #expect(bus.ecam(9, 0, width: width) == ones)
      #expect(bus.config(2, 0, width: width, function: 1) == ones)
    }
    // Another bus, and an address that isn't enabled.
    bus.ports.write(0xCF8, width: 4, value: 0x8001_0000)
    #expect(bus.ports.read(0xCFC, width: 4) == 0xFFFF_FFFF)
    bus.ports.write(0xCF8, width: 4, value: 0x0000_1000)
    #expect(bus.ports.read(0xCFC, width: 4) == 0xFFFF_FFFF)
  }

  @Test func `a function says what it is, byte by byte and whole`() {
    #expect(bus.config(2, 0) == 0x0005_1B36)
    #expect(bus.config(2, 1, width: 1) == 0x1B)
    #expect(bus.config(2, 2, width: 2) == 0x0005)
    #expect(bus.config(2, 8) == 0xFF00_0001)
    #expect(bus.ecam(2, 0x2C) == 0x1100_1AF4)
    #expect(bus.config(0, 8) >> 16 == 0x0600)
    #expect(bus.ecam(2, 0x100) == 0)
  }

  @Test func `the address reads back, and only whole`() {
    bus.ports.write(0xCF8, width: 4, value: 0xFFFF_FFFF)
    #expect(bus.ports.read(0xCF8, width: 4) == 0x80FF_FFFC)
    bus.ports.write(0xCF8, width: 2, value: 0)
    #expect(bus.ports.read(0xCF8, width: 4) == 0x80FF_FFFC)
  }

  @Test func `a byte at 0xCF9 resets the machine, and an address doesn't`() {
    bus.ports.write(0xCF8, width: 4, value: 0x8000_0600)
    #expect(bus.machine.requests == [])
    bus.ports.write(0xCF9, width: 1, value: 6)
    #expect(bus.machine.requests == [.reset])
  }

  @Test(arguments: [
    (0x10 as UInt64, 0xFFFF_F000 as UInt64), (0x14, 0xFFFF_F000), (0x18, 0xFFFF_FFF1),
    (0x1C, 0), (0x20, 0xFFFF_000C), (0x24, 0xFFFF_FFFF), (0x30, 0),
  ])
  func `ones written to a BAR read back as its size`(register: UInt64, answer: UInt64) {
    bus.setConfig(2, register, 0xFFFF_FFFF)
    #expect(bus.config(2, register) == answer)
  }

  @Test func `what is read-only stays`() {
    let registers: [UInt64] = [0x00, 0x08, 0x28, 0x2C, 0x34, 0x40]
    let before = registers.map { bus.config(2, $0) }
    for offset in stride(from: 0 as UInt64, to: 256, by: 4) {
      bus.setConfig(2, offset, 0xFFFF_FFFF)
    }
    #expect(registers.dropLast().map { bus.config(2, $0) } == before.dropLast())
    // Command: ports, memory, master, parity, SERR, interrupt disable. Status: capabilities.
    #expect(bus.config(2, 4) == 0x0010_0547)
    // MSI-X: enable and function mask alone.
    #expect(bus.config(2, 0x40) == before[5] | 0xC000_0000)
    bus.setConfig(2, 0x4C, 0)
    #expect(bus.config(2, 0x4C) == 0xAA06_0009)
    bus.setConfig(2, 0x50, 0xFF)
    #expect(bus.config(2, 0x50, width: 1) == 0xF0)
  }

  @Test func `the capability list names MSI-X, then the device's own`() {
    let first = bus.config(2, 0x34, width: 1)
    #expect(bus.config(2, first, width: 1) == 0x11)
    #expect(bus.config(2, first + 2, width: 2) == 2)
    #expect(bus.config(2, first + 4) == 1)
    #expect(bus.config(2, first + 8) == 0x801)
    let second = bus.config(2, first + 1, width: 1)
    #expect(bus.config(2, second, width: 1) == 0x09)
    #expect(bus.config(2, second + 1, width: 1) == 0)
    #expect(bus.config(0, 0x34, width: 1) == 0)
  }

  @Test func `only a device with several functions says so`() {
    #expect(bus.config(2, 0x0E, width: 1) == 0)
    #expect(bus.config(4, 0x0E, width: 1) == 0x80)
    #expect(bus.config(4, 0, function: 1) == 0x0005_1B36)
    #expect(bus.config(4, 0x3D, width: 1) == 1)
    #expect(bus.config(4, 0x3D, width: 1, function: 1) == 2)
  }

  @Test func `a trace names the function, not the window`() {
    bus.setConfig(2, 0x10, 0xD000_0000)
    bus.setConfig(2, 4, width: 2, 2)
    #expect(bus.mmio.deviceName(at: 0xD000_0004)?.description == "pci-test")
    #expect(bus.mmio.deviceName(at: 0xD000_1000) == nil)
    #expect(bus.ports.deviceName(at: 0xCFC)?.description == "pci-test")
    #expect(bus.ports.deviceName(at: 0xCF9)?.description == "reset")
    #expect(bus.mmio.deviceName(at: PCITestBus.ecam)?.description == "host-bridge")
  }
}
