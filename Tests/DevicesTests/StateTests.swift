import Devices
import Host
import Memory
import Synchronization
import TestSupport
import Testing

/// A device at ports of its own, which a guest reads and writes as it likes.
private final class PortSubject: StateSubject {
  let device: any Stateful
  private let log: StateLog
  private let lines: [LoggedLine]
  private let bus: Bus
  private let likely: [UInt64]
  private let host: (inout SplitMix) -> [UInt64]

  /// `likely` are values that mean something to it; `host` is what the host does to it.
  init<Made: Stateful & Device>(
    _ made: Made, count: UInt64, _ log: StateLog, lines: [LoggedLine] = [], likely: [UInt64] = [],
    host: @escaping (inout SplitMix) -> [UInt64] = { _ in [] }
  ) throws {
    var bus = Bus()
    try bus.add(made, at: 0, count: count)
    (device, self.log, self.lines, self.bus) = (made, log, lines, bus)
    (self.likely, self.host) = (likely, host)
  }

  init(
    _ device: any Stateful, ports: [any Device], _ log: StateLog, likely: [UInt64] = []
  ) throws {
    var bus = Bus()
    for (index, port) in ports.enumerated() { try bus.add(port, at: UInt64(index), count: 1) }
    (self.device, self.log, self.bus, self.likely) = (device, log, bus, likely)
    (lines, host) = ([], { _ in [] })
  }

  func operate(_ random: inout SplitMix) -> [UInt64] {
    let last = bus.slots.last?.last ?? 0
    let port = UInt64.random(in: 0...last, using: &random)
    let width = [1, 1, 2, 4].randomElement(using: &random) ?? 1
    switch Int.random(in: 0..<8, using: &random) {
    case 0: return host(&random)
    case 1..<4: return [bus.read(port, width: width)]
    case 4..<6:
      bus.write(port, width: 1, value: likely.randomElement(using: &random) ?? 0)
    default: bus.write(port, width: width, value: random.next() & .max >> UInt64(64 - width * 8))
    }
    return []
  }

  func heard() -> [String] { log.take() }
  var levels: [Bool] { lines.map(\.isRaised) }
  var hostFields: Set<String> { ["host-now"] }
}

private final class LoggedSink: ByteSink {
  private let log: StateLog
  init(_ log: StateLog) { self.log = log }
  func write(_ bytes: Span<UInt8>) { log.note("sent \(bytes.indices.map { bytes[$0] })") }
}

private final class LoggedMachine: MachineControl {
  private let log: StateLog
  init(_ log: StateLog) { self.log = log }
  func requestPowerOff() { log.note("power off") }
  func requestSuspend() { log.note("suspend") }
  func requestReset() { log.note("reset") }
  func requestExit(_ value: UInt32) { log.note("exit \(value)") }
}

/// The host's clock as one machine sees it.
private final class HostTime: Sendable {
  private let time: Atomic<Int64>
  init(_ seconds: Int64) { time = Atomic(seconds * 1_000_000_000) }
  var now: Int64 { time.load(ordering: .relaxed) }
  func pass(_ nanoseconds: Int64) { time.add(nanoseconds, ordering: .relaxed) }
}

@Suite(.limited) struct StateTests {
  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `the serial port`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      let line = LoggedLine("line", log)
      let uart = UART16550A(line: line, sink: LoggedSink(log))
      return try PortSubject(
        uart, count: 8, log, lines: [line], likely: [0, 1, 3, 7, 0x0F, 0x80, 0xC1],
        host: { random in
          if random.next() & 3 == 0 { return [uart.receiveBreak() ? 1 : 0] }
          let bytes = (0..<Int.random(in: 1...20, using: &random)).map { UInt8($0) }
          return [UInt64(uart.receive(bytes.span))]
        })
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `the keyboard controller`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      let controller = I8042(machine: LoggedMachine(log))
      return try PortSubject(
        controller, ports: [controller.makeDataPort(), controller.makeCommandPort()], log,
        likely: [0x20, 0x60, 0xA9, 0xAA, 0xAD, 0xC0, 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xDD, 0xFE])
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `ports of a byte or four`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      try PortSubject(PostPort(), count: 4, StateLog())
    }
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      return try PortSubject(SystemControlPortA(machine: LoggedMachine(log)), count: 1, log)
    }
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      return try PortSubject(ResetControl(machine: LoggedMachine(log)), count: 4, log)
    }
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `the test device`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      return try PortSubject(
        TestDevice(flush: { log.note("flush \($0)") }), count: TestDevice.portCount, log)
    }
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      let lines = (0..<24).map { LoggedLine("line \($0)", log) }
      return try PortSubject(
        TestInterruptPorts(lines: lines), count: 24, log, lines: lines, likely: [0, 1])
    }
    try StateHarness.check(seed: seed, count: 50) {
      try PortSubject(TestMemory(), count: TestMemory.size, StateLog())
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `the firmware configuration`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      let device = FirmwareConfiguration(
        ramSize: 1 << 30, cpuCount: 2, files: [.init(name: "etc/a", bytes: [1, 2, 3])])
      return try PortSubject(device, count: 2, StateLog()) { random in
        let keys: [UInt64] = [0, 1, 3, 5, 0x19, 0x20, 0x21]
        let key = keys.randomElement(using: &random) ?? 0
        device.write(offset: 0, width: 2, value: key)
        return []
      }
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `ACPI's registers, whose timer goes on`(seed: UInt64) throws {
    var hosts = 0 as Int64
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      let line = LoggedLine("SCI", log)
      hosts += 1
      let time = HostTime(hosts * 1000)
      let device = PowerManagement(
        machine: LoggedMachine(log), line: line, now: { UInt64(time.now) })
      return try PortSubject(
        device, count: 12, log, lines: [line], likely: [0, 1, 4, 0x20, 0x24, 0xFF]
      ) { random in
        time.pass(Int64.random(in: 0...1_000_000_000, using: &random))
        switch random.next() & 7 {
        case 0: device.pressPowerButton()
        case 1: device.wakeByClock()
        default: break
        }
        return [device.clockMayWake ? 1 : 0]
      }
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `ACPI's general-purpose events`(seed: UInt64) throws {
    try StateHarness.check(seed: seed) {
      let log = StateLog()
      let line = LoggedLine("SCI", log)
      let events = GeneralPurposeEvents(line: line)
      return try PortSubject(events, count: 4, log, lines: [line], likely: [0x20, 0xFF]) { random in
        if random.next() & 1 == 0 { events.raise(Int.random(in: 0..<16, using: &random)) }
        return []
      }
    }
  }

  @Test(arguments: 1...4 as ClosedRange<UInt64>)
  func `the clock, on another host too`(seed: UInt64) throws {
    var hosts = 0 as Int64
    let make = {
      let log = StateLog()
      let line = LoggedLine("IRQ 8", log)
      hosts += 1
      let time = HostTime(1_709_251_198 + hosts * 86400)
      let clock = RealTimeClock(
        sizes: .init(ramBelow4GiB: 1 << 30, ramAbove4GiB: 0, cpuCount: 2), line: line,
        now: { time.now }, schedule: { log.note("wait \($0.map { "\($0)" } ?? "no more")") })
      return try PortSubject(
        clock, count: 2, log, lines: [line], likely: [0, 1, 5, 0x0A, 0x0B, 0x0C, 0x26, 0x42, 0x72]
      ) { random in
        time.pass(Int64.random(in: 0...3_000_000_000, using: &random))
        if random.next() & 1 == 0 { clock.tick() }
        return [clock.hasAlarm ? 1 : 0]
      }
    }
    try StateHarness.restoredAnswersAlike(seed: seed, count: 400, make)
    try StateHarness.lacksNothing(seed: seed, count: 400, make)
    try StateHarness.bearsDamage(seed: seed, count: 400, make)
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `a PCI bus, its functions and their vectors`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, PCISubject.init)
  }

  @Test(arguments: 1...2 as ClosedRange<UInt64>)
  func `the IDE controller with four drives`(seed: UInt64) throws {
    try StateHarness.check(seed: seed, count: 200, IDESubject.init)
  }

  @Test func `no bytes, and fields without a value, are no state`() throws {
    let uart = UART16550A(line: RecordingLine(), sink: RecordingSink())
    #expect(throws: StateError.missing("ier")) { try uart.restore(from: StateReader([])) }
    #expect(throws: StateError.malformed(offset: 0)) { try StateReader([3, 0x69]) }
  }
}

// MARK: - PCI

/// A bus with four functions, all of which are reset, saved and restored together.
private final class PCISubject: StateSubject, Stateful {
  private let rig: PCITestBus
  private let ports: PCIConfigurationPorts

  init() throws {
    rig = try PCITestBus()
    let ports = rig.ports.slots.compactMap { $0.device as? PCIConfigurationPorts }
    self.ports = try #require(ports.first)
  }

  var device: any Stateful { self }
  var levels: [Bool] { (rig.lines + rig.pic).map(\.isRaised) }

  func heard() -> [String] {
    var heard = rig.router.deliver().map { "message \($0.address) \($0.data)" }
    heard.append("doorbells \(rig.doorbells.places)")
    heard.append("ranges \(rig.functions.map(\.places))")
    return heard + ["lines \(levels)"]
  }

  func operate(_ random: inout SplitMix) -> [UInt64] {
    let number = Int.random(in: 0..<4, using: &random)
    let device = rig.devices[number]
    let word = random.next() & 0xFFFF_FFFF
    switch Int.random(in: 0..<10, using: &random) {
    case 0: device.slot.msix?.raise(Int.random(in: 0..<4, using: &random))
    case 1: device.write(offset: 8, width: 4, value: word & 1)
    case 2:
      // The table: addresses, data and masks.
      let place = UInt64.random(in: 0..<12, using: &random) * 4
      let value = place & 12 == 12 ? word & 1 : word
      device.slot.msix?.write(offset: place, width: 4, value: value)
    case 3: return [device.slot.msix?.read(offset: word & 0xFF8, width: 8) ?? 0]
    case 4: return [rig.mmio.read(0xC000_0000 | word & 0xFFFF, width: 4)]
    case 5: rig.mmio.write(0xC000_0000 | word & 0xFFFC, width: 4, value: word)
    case 6:
      let register = UInt64.random(in: 0..<64, using: &random) * 4
      return [rig.config(UInt64(number) + 1, register)]
    case 7: setCommand(number, word)
    case 8: setRange(number, &random)
    default:
      let place = PCITestBus.ecam + (UInt64(number + 1) << 15) + (word & 0xFC)
      rig.mmio.write(place, width: 4, value: random.next() & 0xFFFF_FFFF)
    }
    return []
  }

  /// Mostly on: ranges and the bus master, vectors or pin.
  private func setCommand(_ number: Int, _ word: UInt64) {
    rig.setConfig(UInt64(min(number, 2)) + 2, 4, width: 2, word & 0x400 | (word & 7))
    rig.setConfig(UInt64(min(number, 2)) + 2, 0x42, width: 2, word & 0xC000)
  }

  private func setRange(_ number: Int, _ random: inout SplitMix) {
    let (register, base): (UInt64, UInt64) =
      [(0x10, 0xC000_0000), (0x14, 0xC000_8000), (0x18, 0xC000)]
      .randomElement(using: &random) ?? (0x10, 0)
    let step = UInt64.random(in: 0..<8, using: &random) << 12
    rig.setConfig(UInt64(min(number, 2)) + 2, register, base | (register == 0x18 ? 0 : step))
  }

  // MARK: All of it

  func reset() {
    rig.pci.reset()
    ports.reset()
    for device in rig.devices { device.reset() }
  }

  func save(to state: inout StateWriter) {
    state.group("bus") { rig.pci.save(to: &$0) }
    state.group("ports") { ports.save(to: &$0) }
    for (index, device) in rig.devices.enumerated() {
      state.group("device\(index)") { device.save(to: &$0) }
    }
  }

  func restore(from state: StateReader) throws(StateError) {
    try rig.pci.restore(from: state.group("bus"))
    try ports.restore(from: state.group("ports"))
    for (index, device) in rig.devices.enumerated() {
      try device.restore(from: state.group("device\(index)"))
    }
  }
}

// MARK: - IDE

/// A controller with four small disks, one of them read-only, that are read, written and trimmed.
private final class IDESubject: StateSubject {
  private let rig: IDERig
  /// How much of what the lines were set to was told.
  private var told = [0, 0]

  init() throws {
    let sizes = [300, 40, 70, 20]
    rig = try IDERig(
      sizes.enumerated().map { MemoryStore(sectors: $1, isReadOnly: $0 == 3) },
      serials: ["A", "B", "C", "D"])
    rig.stores[1].spoil(5, 6, 30)
  }

  private var controller: IDEController { rig.controller }
  var device: any Stateful { controller }
  var levels: [Bool] { [rig.lines.primary.isRaised, rig.lines.secondary.isRaised] }

  func heard() -> [String] {
    let levels = [rig.lines.primary.levels, rig.lines.secondary.levels]
    defer { told = levels.map(\.count) }
    return zip(levels, told).map { "\($0.dropFirst($1))" }
  }

  func takeWorld(of other: IDESubject) {
    for (store, source) in zip(rig.stores, other.rig.stores) { store.fill(source.bytes) }
    guard let memory = try? rig.memory.view(at: GuestAddress(0), count: 1 << 20),
      let source = try? other.rig.memory.view(at: GuestAddress(0), count: 1 << 20)
    else { return }
    memory.copy(from: source, at: 0)
  }

  func operate(_ random: inout SplitMix) -> [UInt64] {
    let answer = access(&random)
    rig.standStill()
    return answer
  }

  private func access(_ random: inout SplitMix) -> [UInt64] {
    let base: UInt64 = random.next() & 1 == 0 ? 0x1F0 : 0x170
    let master = IDERig.busMaster + (base == 0x1F0 ? 0 : 8)
    let value = random.next()
    switch Int.random(in: 0..<16, using: &random) {
    case 0..<3: command(base, &random)
    case 3..<7: return data(base, &random)
    case 7: return [rig.read(base + value % 8, 1)]
    case 8: return [rig.read(base + 7), rig.read(base + 0x206)]
    case 9: return (0..<8).map { rig.read(master + $0) }
    case 10: rig.write(base + 1 + value % 6, value >> 8 & 0xFF)
    case 11: rig.write(base + 0x206, [0, 0, 2, 0x80, 4].randomElement(using: &random) ?? 0)
    case 12: table(master, &random)
    default:
      // Reading is a start with bit 3.
      rig.write(master, value & 9 | 1)
      if value & 0x700 == 0 { rig.write(master, 0) }
      rig.write(master + 2, 0x66)
    }
    return []
  }

  private func command(_ base: UInt64, _ random: inout SplitMix) {
    let codes: [UInt64] = [
      0x06, 0x10, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x70, 0x90, 0x91,
      0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xE0, 0xE3, 0xE5, 0xE6, 0xE7, 0xEC, 0xEF, 0xF8, 0x01,
    ]
    let value = random.next()
    rig.write(base + 6, 0xE0 | value & 0x10)
    rig.write(base + 1, [1, 3, 2, 0x82, 0x66, 0xCC].randomElement(using: &random) ?? 0)
    rig.write(base + 2, [1, 2, 3, 8, 0x22, 0x45].randomElement(using: &random) ?? 1)
    for (index, byte) in [value >> 8 & 0x1F, 0, 0].enumerated() {
      rig.write(base + 3 + UInt64(index), byte)
    }
    rig.write(base + 7, codes.randomElement(using: &random) ?? 0)
  }

  private func data(_ base: UInt64, _ random: inout SplitMix) -> [UInt64] {
    var bytes = [UInt8](
      repeating: UInt8(truncatingIfNeeded: random.next()),
      count: [2, 64, 512, 1536].randomElement(using: &random) ?? 2)
    if random.next() & 1 == 0 {
      rig.ports.write(base, width: 2, bytes: bytes.span)
      return []
    }
    var span = bytes.mutableSpan
    rig.ports.read(base, width: 2, into: &span)
    return bytes.map { UInt64($0) }
  }

  private func table(_ master: UInt64, _ random: inout SplitMix) {
    let place = 0x1000 + (random.next() & 0xF8)
    for entry in 0..<2 as Range<UInt64> {
      guard let view = try? rig.memory.view(at: GuestAddress(place + entry * 8), count: 8) else {
        continue
      }
      view.store(UInt32(0x8000 + (random.next() & 0xFFFE)), 0)
      view.store(UInt32(random.next() & 0x8000_0E00) | 0x200, 4)
    }
    rig.write(master + 4, place, 4)
  }
}

extension IDERig {
  /// Waits until no job is under way, by a pause.
  func standStill() {
    let flag = StillFlag()
    controller.pause { flag.set() }
    while !flag.isSet { yieldProcessor() }
    controller.resume()
  }
}

/// Whether something has come to rest.
final class StillFlag: Sendable {
  private let flag = Atomic(false)
  var isSet: Bool { flag.load(ordering: .acquiring) }
  func set() { flag.store(true, ordering: .releasing) }
}
