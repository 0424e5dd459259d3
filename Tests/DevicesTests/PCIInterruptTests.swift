import Devices
import TestSupport
import Testing

@Suite(.limited) struct PCIInterruptTests {
  private let bus: PCITestBus
  private let table: UInt64 = 0xD000_0000

  init() throws {
    bus = try PCITestBus()
    bus.setConfig(2, 0x14, table)
    bus.setConfig(2, 4, width: 2, 6)
  }

  private var msix: MSIX { get throws { try #require(bus.devices[0].slot.msix) } }

  private func control(enable: Bool, mask: Bool = false) {
    bus.setConfig(2, 0x42, width: 2, (enable ? 0x8000 : 0) | (mask ? 0x4000 : 0))
  }

  private func set(_ vector: UInt64, address: UInt64 = 0xFEE0_1000, data: UInt64, mask: UInt64 = 0)
  {
    bus.mmio.write(table + vector * 16, width: 8, value: address)
    bus.mmio.write(table + vector * 16 + 8, width: 4, value: data)
    bus.mmio.write(table + vector * 16 + 12, width: 4, value: mask)
  }

  private var pending: UInt64 { bus.mmio.read(table + 0x800, width: 8) }

  @Test func `a vector sends its own message, and none while MSI-X is disabled`() throws {
    set(1, data: 0x41)
    try msix.raise(1)
    #expect(bus.router.deliver() == [])
    control(enable: true)
    #expect(bus.router.deliver() == [])
    try msix.raise(1)
    #expect(bus.router.deliver() == [InterruptMessage(address: 0xFEE0_1000, data: 0x41)])
    set(1, address: 0xFEE0_2000, data: 0x42)
    try msix.raise(1)
    #expect(bus.router.deliver() == [InterruptMessage(address: 0xFEE0_2000, data: 0x42)])
    control(enable: false)
    try msix.raise(1)
    #expect(bus.router.deliver() == [])
  }

  @Test func `a masked vector is pending, and sends when it's unmasked`() throws {
    control(enable: true)
    set(0, data: 0x40)
    set(2, data: 0x42, mask: 1)
    try msix.raise(2)
    try msix.raise(2)
    #expect(bus.router.deliver() == [])
    #expect(pending == 0b100)
    bus.mmio.write(table + 2 * 16 + 12, width: 4, value: 0)
    #expect(bus.router.deliver() == [InterruptMessage(address: 0xFEE0_1000, data: 0x42)])
    #expect(bus.router.deliver() == [])
    #expect(pending == 0)
  }

  @Test func `the function's mask holds all back, whoever raises them`() throws {
    control(enable: true, mask: true)
    set(0, data: 0x40)
    set(1, data: 0x41)
    // As another process would, by the event.
    try msix.event(0).event.raise()
    try msix.raise(1)
    #expect(pending == 0b11)
    #expect(bus.router.deliver() == [])
    control(enable: true)
    #expect(bus.router.deliver().map(\.data) == [0x40, 0x41])
  }

  @Test func `without bus mastering nothing is sent`() throws {
    control(enable: true)
    set(0, data: 0x40)
    bus.setConfig(2, 4, width: 2, 2)
    #expect(!bus.devices[0].slot.isBusMaster)
    try msix.raise(0)
    #expect(bus.router.deliver() == [])
    bus.setConfig(2, 4, width: 2, 6)
    #expect(bus.devices[0].slot.isBusMaster)
    #expect(bus.router.deliver().map(\.data) == [0x40])
  }

  @Test func `routes change only when an entry does`() throws {
    control(enable: true)
    set(0, data: 0x40)
    let before = bus.router.changes
    set(0, data: 0x40)
    control(enable: true)
    #expect(bus.router.changes == before)
  }

  @Test func `the table reads back, masked at first, and bears no bytes`() {
    #expect(bus.mmio.read(table + 12, width: 4) == 1)
    bus.mmio.write(table + 12, width: 1, value: 0)
    bus.mmio.write(table + 8, width: 2, value: 0xFFFF)
    #expect(bus.mmio.read(table + 8, width: 8) == 1 << 32)
    set(0, address: 0x1_FEE0_1000, data: 0x77)
    #expect(bus.mmio.read(table, width: 8) == 0x1_FEE0_1000)
    #expect(bus.mmio.read(table + 8, width: 8) == 0x77)
    // No fourth vector, and pending bits are read-only.
    set(3, data: 0x77)
    #expect(bus.mmio.read(table + 3 * 16, width: 8) == 0)
    bus.mmio.write(table + 0x800, width: 8, value: .max)
    #expect(pending == 0)
  }

  @Test func `what is pending in a save is pending after it, and sends when it's unmasked`() throws
  {
    control(enable: true)
    set(0, data: 0x40)
    set(2, data: 0x42, mask: 1)
    try msix.raise(0)
    try msix.raise(2)
    let other = try PCITestBus()
    var state = StateWriter()
    bus.pci.save(to: &state)

    try other.pci.restore(from: StateReader(state.bytes))

    // The first was sent but not delivered: it is sent again.
    #expect(other.router.deliver().map(\.data) == [0x40])
    #expect(other.mmio.read(table + 0x800, width: 8) == 0b100)
    other.mmio.write(table + 2 * 16 + 12, width: 4, value: 0)
    #expect(other.router.deliver() == [InterruptMessage(address: 0xFEE0_1000, data: 0x42)])
  }

  @Test func `a reset masks all vectors and forgets what was raised`() throws {
    control(enable: true)
    set(0, data: 0x40)
    set(1, data: 0x41, mask: 1)
    try msix.raise(0)
    try msix.raise(1)

    bus.pci.reset()

    #expect(bus.router.deliver() == [])
    #expect(try !msix.isEnabled)
    bus.setConfig(2, 0x14, table)
    bus.setConfig(2, 4, width: 2, 6)
    control(enable: true)
    #expect(pending == 0)
    #expect(bus.mmio.read(table + 8, width: 8) == 1 << 32)
  }

  // MARK: Pins

  @Test func `a pin raises its lines until it's lowered, and shows in the status`() {
    let pin = bus.devices[0].slot.pin
    #expect(bus.config(2, 6, width: 2) & 8 == 0)
    pin.set(true)
    #expect(bus.lines[2].isRaised && bus.pic[0].isRaised)
    #expect(bus.config(2, 6, width: 2) & 8 == 8)
    #expect(bus.config(2, 4) & 8 << 16 == 8 << 16)
    pin.set(false)
    #expect(!bus.lines[2].isRaised && !bus.pic[0].isRaised)
    #expect(bus.config(2, 6, width: 1) & 8 == 0)
  }

  @Test func `Interrupt Disable holds the pin back, but not its status`() {
    bus.setConfig(2, 4, width: 2, 0x406)
    bus.devices[0].slot.pin.set(true)
    #expect(!bus.lines[2].isRaised)
    #expect(bus.config(2, 6, width: 2) & 8 == 8)
    bus.setConfig(2, 4, width: 2, 6)
    #expect(bus.lines[2].isRaised)
    bus.setConfig(2, 4, width: 2, 0x406)
    #expect(!bus.lines[2].isRaised)
  }

  @Test func `a shared line is up while anybody wants it up`() {
    // Devices 2 and 4 share IRQ 10, but no input of the IOAPIC.
    bus.devices[0].slot.pin.set(true)
    bus.devices[2].slot.pin.set(true)
    bus.devices[2].slot.pin.set(true)
    #expect(bus.pic[0].levels == [true])
    bus.devices[0].slot.pin.set(false)
    #expect(bus.pic[0].isRaised && !bus.lines[2].isRaised)
    bus.devices[2].slot.pin.set(false)
    #expect(bus.pic[0].levels == [true, false])
  }
}
