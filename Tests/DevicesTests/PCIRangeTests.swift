import Devices
import TestSupport
import Testing

@Suite(.limited) struct PCIRangeTests {
  private let bus: PCITestBus

  init() throws { bus = try PCITestBus() }

  @Test func `a range answers where it is put, and only while it's switched on`() {
    bus.setConfig(2, 0x10, 0xD000_0000)
    bus.mmio.write(0xD000_0000, width: 4, value: 1)
    #expect(bus.mmio.read(0xD000_0000, width: 4) == 0xFFFF_FFFF)
    bus.setConfig(2, 4, width: 2, 2)
    bus.mmio.write(0xD000_0000, width: 4, value: 0x1234_5678)
    #expect(bus.mmio.read(0xD000_0000, width: 4) == 0x1234_5678)
    #expect(bus.mmio.read(0xD000_0002, width: 1) == 0x34)
    // Eight bytes are two of the device's accesses.
    #expect(bus.mmio.read(0xD000_0000, width: 8) == 0x1234_5678)

    bus.setConfig(2, 0x10, 0xE000_0000)
    #expect(bus.mmio.read(0xD000_0000, width: 4) == 0xFFFF_FFFF)
    #expect(bus.mmio.read(0xE000_0000, width: 4) == 0x1234_5678)
    bus.setConfig(2, 4, width: 2, 0)
    #expect(bus.mmio.read(0xE000_0000, width: 4) == 0xFFFF_FFFF)
  }

  @Test func `ports and 64-bit addresses move as well`() {
    bus.setConfig(2, 0x18, 0xC120)
    bus.setConfig(2, 0x20, 0x2000_0000)
    bus.setConfig(2, 0x24, 0x0000_0003)
    bus.setConfig(2, 4, width: 2, 3)
    bus.ports.write(0xC120, width: 2, value: 0xBEEF)
    #expect(bus.mmio.read(0x3_2000_0000, width: 4) == 0xBEEF)
    bus.setConfig(2, 0x24, 0)
    bus.setConfig(2, 0x20, 0xF000_0000)
    #expect(bus.mmio.read(0xF000_0000, width: 4) == 0xBEEF)
    #expect(bus.mmio.read(0x3_2000_0000, width: 4) == 0xFFFF_FFFF)
  }

  @Test(arguments: [0 as UInt64, 0xFEB0_0000, 0xFEC0_0000, 0xFEE0_0000, 0xFFFF_F000])
  func `a range outside of the windows is off`(address: UInt64) {
    bus.setConfig(2, 0x10, address)
    bus.setConfig(2, 0x18, address == 0 ? 0x3F0 : address)
    bus.setConfig(2, 4, width: 2, 3)
    #expect(bus.functions[0].places.allSatisfy { $0 == nil })
    #expect(
      bus.mmio.read(address, width: 4) == (address == PCITestBus.ecam ? 0x81B36 : 0xFFFF_FFFF))
  }

  @Test func `where ranges overlap, the first function answers`() {
    for device: UInt64 in [2, 3] {
      bus.setConfig(device, 0x10, 0xD000_0000)
      bus.setConfig(device, 4, width: 2, 2)
    }
    bus.mmio.write(0xD000_0000, width: 4, value: 7)
    #expect(bus.devices[0].read(offset: 0, width: 4) == 7)
    #expect(bus.devices[1].read(offset: 0, width: 4) == 0)
    bus.setConfig(2, 4, width: 2, 0)
    #expect(bus.mmio.read(0xD000_0000, width: 4) == 0)
  }

  @Test func `doorbells move with their range and rest while it's off`() throws {
    let doorbell = try Doorbell(width: 4)
    bus.devices[0].slot.connect(doorbell, bar: 0, offset: 12)
    #expect(bus.doorbells.places == [])
    bus.setConfig(2, 0x10, 0xD000_0000)
    bus.setConfig(2, 4, width: 2, 2)
    #expect(bus.doorbells.places == [.memory(0xD000_000C)])
    bus.setConfig(2, 0x10, 0xE000_0000)
    #expect(bus.doorbells.places == [.memory(0xE000_000C)])
    let second = try Doorbell(width: 2, value: 1)
    bus.devices[0].slot.connect(second, bar: 0, offset: 16)
    #expect(bus.doorbells.places == [.memory(0xE000_000C), .memory(0xE000_0010)])
    bus.devices[0].slot.disconnect(doorbell)
    #expect(bus.doorbells.places == [.memory(0xE000_0010)])
    bus.setConfig(2, 0x10, 0xFEE0_0000)
    #expect(bus.doorbells.places == [])
  }

  @Test func `assigned ranges are switched on, aligned, inside their windows and apart`() {
    bus.pci.assign { 10 + $0.device % 2 }
    var taken: [(space: Bool, range: Range<UInt64>)] = []
    for function in bus.functions {
      for (bar, place) in zip(function.bars, function.places) {
        switch place {
        case .port(let port):
          taken.append((false, UInt64(port)..<UInt64(port) + bar.size))
        case .memory(let address): taken.append((true, address..<address + bar.size))
        case nil: Issue.record("BAR \(bar.index) is off")
        }
        #expect((taken.last?.range.lowerBound ?? 1) % bar.size == 0)
      }
      #expect([10, 11].contains(function.interruptLine))
    }
    #expect(taken.count == 16)
    for (index, one) in taken.enumerated() {
      for other in taken[..<index] where other.space == one.space {
        #expect(!other.range.overlaps(one.range))
      }
    }
    #expect(bus.config(2, 4, width: 2) == 3)
  }

  @Test func `after a reset nothing is decoded, and assigning gives the same places again`() throws
  {
    let bus = try PCITestBus()
    bus.pci.assign { _ in 10 }
    let places = bus.functions.map(\.places)
    let bells = bus.doorbells.places
    bus.setConfig(2, 0x10, 0xD000_0000)

    bus.pci.reset()

    #expect(bus.functions.allSatisfy { $0.places.allSatisfy { $0 == nil } })
    #expect(bus.doorbells.places == [])
    #expect(bus.config(2, 0x3C, width: 1) == 0xFF)
    #expect(bus.mmio.read(0xD000_0000, width: 4) == 0xFFFF_FFFF)
    bus.pci.assign { _ in 10 }
    #expect(bus.functions.map(\.places) == places)
    #expect(bus.doorbells.places == bells)
  }

  @Test func `a state of another function isn't taken`() throws {
    let bus = try PCITestBus()
    var state = StateWriter()
    bus.functions[3].save(to: &state)
    let bytes = state.bytes
    // Function 1 of device 4 has INTB#, function 0 says that there are several.
    #expect(throws: StateError.impossible("registers")) {
      try bus.functions[2].restore(from: StateReader(bytes))
    }
  }
}
