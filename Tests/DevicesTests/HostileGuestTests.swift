import Devices
import Testing
import TestSupport

@Suite(.limited) struct HostileGuestTests {
  private static func makePC(_ uart: UART16550A) throws -> Bus {
    let machine = RecordingMachine()
    let keyboard = I8042(machine: machine)
    // A clock that leaps, forwards and back.
    let clock = RealTimeClock(
      sizes: .init(ramBelow4GiB: 1 << 30, ramAbove4GiB: 1 << 40, cpuCount: 300),
      now: { Int64.random(in: -1 << 61...1 << 61) })
    var bus = Bus()
    try bus.add(keyboard.makeDataPort(), at: 0x60, count: 1)
    try bus.add(keyboard.makeCommandPort(), at: 0x64, count: 1)
    try bus.add(clock, at: 0x70, count: 2)
    try bus.add(PostPort(), at: 0x80, count: 4)
    try bus.add(SystemControlPortA(machine: machine), at: 0x92, count: 1)
    try bus.add(TestDevice(flush: { _ in }), at: 0xE0, count: TestDevice.portCount)
    try bus.add(DebugConsole(sink: RecordingSink()), at: 0xED, count: 1)
    try bus.add(ExitPort(machine: machine), at: 0xF4, count: 4)
    try bus.add(uart, at: 0x3F8, count: 8)
    try bus.add(
      FirmwareConfiguration(
        ramSize: 1 << 40, cpuCount: 1 << 20, files: [.init(name: "etc/x", bytes: [1, 2])]),
      at: 0x510, count: 2)
    try bus.add(
      PowerManagement(
        machine: machine, line: RecordingLine(), now: { UInt64.random(in: 0...UInt64.max) }),
      at: 0x600, count: 12)
    try bus.add(GeneralPurposeEvents(line: RecordingLine()), at: 0x60C, count: 4)
    try bus.add(ResetControl(machine: machine), at: 0xCF8, count: 4)
    try bus.add(
      TestInterruptPorts(lines: (0..<24).map { _ in RecordingLine() }), at: 0x2000, count: 24)
    try bus.add(TestMemory(), at: 0xFF00_0000, count: TestMemory.size)
    return bus
  }

  @Test(arguments: [1 as UInt64, 2, 3])
  func `random accesses of every width never trap and read no wider than asked`(
    seed: UInt64
  ) throws {
    var random = SplitMix(seed)
    let uart = UART16550A(
      line: RecordingLine(), sink: RecordingSink(), demand: CountingDemand())
    let bus = try Self.makePC(uart)
    let places = bus.slots.map { slot in (slot.start - 4)...(slot.last + 4) }
    var tooWide = 0

    for _ in 0..<Trials.rounds(100_000) {
      let place = try #require(places.randomElement(using: &random))
      let port = UInt64.random(in: place, using: &random)
      let width = 1 << Int.random(in: 0...3, using: &random)
      let mask = UInt64.max >> UInt64(64 - width * 8)
      switch Int.random(in: 0..<8, using: &random) {
      case 0..<4: bus.write(port, width: width, value: random.next() & mask)
      case 4..<7: if bus.read(port, width: width) > mask { tooWide += 1 }
      default: _ = uart.receive([1, 2, 3].span)
      }
    }

    #expect(tooWide == 0)
  }

  @Test(arguments: [4 as UInt64, 5])
  func `devices bear offsets and widths beyond their own`(seed: UInt64) throws {
    var random = SplitMix(seed)
    let uart = UART16550A(line: RecordingLine(), sink: RecordingSink())
    let bus = try Self.makePC(uart)

    for _ in 0..<Trials.rounds(20_000) {
      for slot in bus.slots {
        let width = 1 << Int.random(in: 0...3, using: &random)
        slot.device.write(offset: random.next(), width: width, value: random.next())
        _ = slot.device.read(offset: random.next(), width: width)
        slot.device.write(offset: random.next(), width: 1, bytes: [0x80, 0xFF, 0x00].span)
      }
    }

    #expect(uart.receiveRoom <= 16)
  }
}
