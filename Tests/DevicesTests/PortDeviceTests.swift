import Devices
import TestSupport
import Testing

@Suite(.limited) struct DebugConsoleTests {
  @Test func `a guest finds the console by its 0xE9 and prints byte by byte or at once`() {
    let sink = RecordingSink()
    let console = DebugConsole(sink: sink)

    console.put(0x41, 0)
    console.write(offset: 0, width: 1, bytes: [0x42, 0x43].span)

    #expect(console.byte(0) == 0xE9)
    #expect(sink.calls == [[0x41], [0x42, 0x43]])
  }
}

@Suite(.limited) struct ExitPortTests {
  @Test(arguments: [(1, 0x2A as UInt64), (2, 0x1234), (4, 0x8765_4321)])
  func `a value of each width arrives whole`(width: Int, value: UInt64) throws {
    let machine = RecordingMachine()
    var bus = Bus()
    try bus.add(ExitPort(machine: machine), at: 0xF4, count: 4)

    bus.write(0xF4, width: width, value: value)

    #expect(machine.requests == [.exit(UInt32(value))])
    #expect(bus.read(0xF4, width: width) == 0)
  }
}

@Suite(.limited) struct PostPortTests {
  @Test func `the last code is kept and read back`() {
    let port = PostPort()

    port.put(0x12, 0)
    port.put(0x34, 0)

    #expect(port.lastCode == 0x34)
    #expect(port.byte(0) == 0x34)
  }

  @Test func `wide codes are kept whole, and a byte replaces only itself`() throws {
    let port = PostPort()
    var bus = Bus()
    try bus.add(port, at: 0x80, count: 4)

    bus.write(0x80, width: 4, value: 0xAABB_CCDD)
    bus.write(0x82, width: 1, value: 0x11)
    bus.write(0x80, width: 2, value: 0x2233)

    #expect(port.lastCode == 0xAA11_2233)
    #expect(bus.read(0x82, width: 2) == 0xAA11)
  }

  @Test func `at a single port a wide write leaves its low byte`() throws {
    let port = PostPort()
    var bus = Bus()
    try bus.add(port, at: 0x80, count: 1)

    bus.write(0x80, width: 2, value: 0x2233)

    #expect(port.lastCode == 0x33)
  }
}

@Suite(.limited) struct SystemControlPortATests {
  @Test func `A20 reads back open at first and then as it was set`() {
    let port = SystemControlPortA(machine: RecordingMachine())
    #expect(port.byte(0) == 0x02)

    port.put(0x00, 0)
    #expect(port.byte(0) == 0x00)
    port.put(0xFE, 0)

    #expect(port.byte(0) == 0x02)
  }

  @Test func `the reset comes when its bit rises, not while it stays`() {
    let machine = RecordingMachine()
    let port = SystemControlPortA(machine: machine)

    port.put(0x02, 0)
    #expect(machine.requests == [])
    port.put(0x03, 0)
    port.put(0x03, 0)

    #expect(machine.requests == [.reset])
  }
}

@Suite(.limited) struct ResetControlTests {
  private let machine = RecordingMachine()

  private func makeBus() throws -> Bus {
    var bus = Bus()
    try bus.add(ResetControl(machine: machine), at: 0xCF8, count: 4)
    return bus
  }

  @Test(arguments: [0x04 as UInt64, 0x06, 0x0E])
  func `soft, hard and full resets all reset, on the rise of RCPU`(value: UInt64) throws {
    let bus = try makeBus()
    bus.write(0xCF9, width: 1, value: value & ~0x04)
    #expect(machine.requests == [])
    #expect(bus.read(0xCF9, width: 1) == value & ~0x04)

    bus.write(0xCF9, width: 1, value: value)
    bus.write(0xCF9, width: 1, value: value)

    #expect(machine.requests == [.reset])
  }

  @Test func `a PCI configuration address is no reset, whatever function it names`() throws {
    let bus = try makeBus()

    bus.write(0xCF8, width: 4, value: 0x8000_0C00)
    bus.write(0xCF8, width: 2, value: 0x0600)
    bus.write(0xCFB, width: 1, value: 0x01)

    #expect(machine.requests == [])
    #expect(bus.read(0xCF8, width: 4) == 0xFFFF_FFFF)
    #expect(bus.read(0xCF8, width: 2) == 0xFFFF)
    #expect(bus.read(0xCFA, width: 1) == 0xFF)
    #expect(bus.read(0xCF9, width: 1) == 0x00)
  }
}

@Suite(.limited) struct I8042Tests {
  private let machine = RecordingMachine()
  private let data: any Device
  private let command: any Device

  init() {
    let controller = I8042(machine: machine)
    data = controller.makeDataPort()
    command = controller.makeCommandPort()
  }

  private func ask(_ value: UInt8) -> UInt8? {
    command.put(value, 0)
    return command.byte(0) & 0x01 == 0 ? nil : data.byte(0)
  }

  @Test func `it is ready for a command and has nothing to say at first`() {
    #expect(command.byte(0) == 0x10)
  }

  @Test func `the self-test passes and sets the system flag`() {
    #expect(ask(0xAA) == 0x55)
    #expect(command.byte(0) & 0x05 == 0x04)
    #expect(ask(0xAB) == 0x00)
  }

  @Test func `the command byte is kept, and AD and AE switch its keyboard bit`() {
    command.put(0x60, 0)
    data.put(0x45, 0)

    #expect(ask(0x20) == 0x45)
    #expect(ask(0xAD) == nil)
    #expect(ask(0x20) == 0x55)
    #expect(ask(0xAE) == nil)
    #expect(ask(0x20) == 0x45)
  }

  @Test func `the status tells commands from data`() {
    command.put(0xAE, 0)
    #expect(command.byte(0) & 0x08 == 0x08)

    data.put(0xF4, 0)

    #expect(command.byte(0) & 0x08 == 0)
  }

  @Test func `0xFE resets the machine, and so does any pulse of the reset line`() {
    command.put(0xFE, 0)
    command.put(0xF0, 0)
    #expect(machine.requests == [.reset, .reset])

    command.put(0xFF, 0)
    command.put(0xF1, 0)

    #expect(machine.requests == [.reset, .reset])
  }

  @Test func `the output port opens A20 and reads back`() {
    #expect(ask(0xD0) == 0xCF)
    command.put(0xD1, 0)
    data.put(0xDD, 0)

    #expect(ask(0xD0) == 0xDD)
    #expect(ask(0xDF) == nil)
    #expect(ask(0xD0) == 0xDF)
    #expect(machine.requests == [])
  }

  @Test func `an output port with a low reset line resets`() {
    command.put(0xD1, 0)
    data.put(0xFE, 0)

    #expect(machine.requests == [.reset])
  }

  @Test func `a byte for the keyboard times out, for there is none`() {
    data.put(0xED, 0)

    #expect(command.byte(0) & 0x41 == 0x41)
    #expect(data.byte(0) == 0xFE)
    #expect(command.byte(0) & 0x41 == 0)
  }

  @Test func `Linux's probes find no auxiliary port, without waiting`() {
    command.put(0xD3, 0)
    data.put(0x5A, 0)
    #expect(command.byte(0) & 0x21 == 0x01)
    #expect(data.byte(0) == 0x5A)

    #expect(ask(0xA9) == 0x01)
  }

  @Test func `a new command gives up the one that waits for its byte`() {
    command.put(0xD1, 0)
    command.put(0xAE, 0)

    data.put(0x00, 0)

    #expect(machine.requests == [])
  }
}
