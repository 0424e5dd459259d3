import Devices
import Host
import Memory
import Storage
import Synchronization

/// Uses a device as the input says, takes its state, damages that as the input says, and gives it to a
/// new device, which must refuse it or answer, and be as new after a reset.
///
/// The input: which device, how many accesses before and after; these in 4 bytes each (what, where, a
/// value of two bytes), then the damage in 4 bytes each (a place in the state, the bits to change, and
/// an amount to add). With bit 7 of the first byte set what follows is itself the state.
@_cdecl("LLVMFuzzerTestOneInput")
public func stateFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard input.count >= 3, let subject = try? Subject(Int(input[0] & 0x7F)) else { return 0 }
  defer { subject.stop() }
  let (before, after) = (3 + 4 * Int(input[1]), 3 + 4 * (Int(input[1]) + Int(input[2])))
  let end = max(input.count - 3, 3)
  if input[0] & 0x80 != 0 {
    subject.restore(Array(input.dropFirst()))
  } else {
    for place in stride(from: 3, to: min(before, end), by: 4) { subject.do(Access(input, place)) }
    var bytes = subject.saved
    for place in stride(from: min(after, end), to: end, by: 4) {
      let at = (Int(input[place]) | Int(input[place + 1]) << 8) % max(bytes.count, 1)
      bytes[at] = (bytes[at] ^ input[place + 2]) &+ input[place + 3]
    }
    subject.restore(bytes)
  }
  for place in stride(from: min(before, end), to: min(after, end), by: 4) {
    subject.do(Access(input, place))
  }
  for port in 0..<UInt8(subject.portCount) {
    subject.do(Access(0, port, 0))
    subject.do(Access(1, port, 0x5A5A))
  }
  _ = subject.saved
  subject.device.reset()
  guard let new = try? Subject(Int(input[0] & 0x7F)) else { return 0 }
  defer { new.stop() }
  precondition(
    subject.keepsTime || subject.saved == new.saved, "a reset device isn't like a new one")
  return 0
}

private struct Access {
  let what: UInt8
  let place: UInt8
  let value: UInt64

  init(_ input: [UInt8], _ place: Int) {
    let value = UInt64(input[place + 2]) | UInt64(input[place + 3]) << 8
    self.init(input[place], input[place + 1], value)
  }

  init(_ what: UInt8, _ place: UInt8, _ value: UInt64) {
    (self.what, self.place, self.value) = (what, place, value)
  }
}

/// A device with its ports.
private final class Subject {
  let device: any Stateful
  let ports: [any Device]
  let portCount: Int
  /// Whether a battery keeps some of it.
  let keepsTime: Bool
  private let ide: IDEController?

  init(_ number: Int) throws {
    let machine = Control()
    var count = 8
    var ide: IDEController?
    switch number % 10 {
    case 0: (device, ports) = Self.both(UART16550A(line: Line(), sink: Sink()))
    case 1:
      (device, ports) = Self.both(
        RealTimeClock(
          sizes: .init(ramBelow4GiB: 1 << 30, ramAbove4GiB: 0, cpuCount: 1), line: Line(),
          now: { time.now }))
      count = 2
    case 2:
      let clock = { @Sendable in UInt64(bitPattern: time.now) }
      (device, ports) = Self.both(PowerManagement(machine: machine, line: Line(), now: clock))
      count = 12
    case 3:
      let controller = I8042(machine: machine)
      (device, ports) = (controller, [controller.makeDataPort(), controller.makeCommandPort()])
      count = 1
    case 4: (device, ports) = Self.both(PostPort())
    case 5: (device, ports) = Self.both(SystemControlPortA(machine: machine))
    case 6:
      let file = FirmwareConfiguration.File(name: "a", bytes: [1, 2])
      (device, ports) = Self.both(
        FirmwareConfiguration(ramSize: 1 << 30, cpuCount: 1, files: [file]))
      count = 2
    case 7:
      (device, ports) = Self.both(TestInterruptPorts(lines: (0..<8).map { _ in Line() }))
    case 8: (device, ports) = try Self.pci(machine)
    default:
      let controller = try Self.makeIDE()
      (device, ports) =
        (controller, controller.commandBlocks + controller.controlBlocks + [controller.busMaster])
      ide = controller
    }
    self.ide = ide
    keepsTime = number % 10 == 1
    portCount = count
  }

  private static func both(_ device: some Stateful & Device) -> (any Stateful, [any Device]) {
    (device, [device])
  }

  private static func pci(_ machine: Control) throws -> (any Stateful, [any Device]) {
    let platform = PCIPlatform(memory: memory, doorbells: Doorbells(), messages: Messages())
    let slot = try PCISlot(platform, vectors: 3)
    slot.connect(try Doorbell(width: 4), bar: 0, offset: 12)
    let function = PCIFunction(
      name: "fuzzed", PCIIdentity(vendor: 0x1B36, device: 5, kind: .other), slot,
      bars: [PCIBAR(0, .memory32, size: 4096, PostPort())], hasPin: true)
    let windows = PCIBus.Windows(
      ports: PCIWindow(start: 0xC000, count: 0x4000),
      memory32: PCIWindow(start: 0xC000_0000, count: 0x1000_0000), memory64: nil)
    let bus = PCIBus(
      [(PCIAddress(device: 0), function)], windows,
      PCIInterruptLines(ioapic: [Line()], pic: [Line()]))
    return (
      bus, [PCIConfigurationMemory(bus), bus.makeMemoryWindow()] + (slot.msix.map { [$0] } ?? [])
    )
  }

  private static func makeIDE() throws -> IDEController {
    try IDEController(
      [.init(Disk(sectors: 300), serial: "A"), .init(Disk(sectors: 40), serial: "B")],
      lines: (Line(), Line()), memory: memory, mayMaster: { true })
  }

  var saved: [UInt8] {
    var state = StateWriter()
    device.save(to: &state)
    return state.bytes
  }

  func restore(_ bytes: [UInt8]) {
    do throws(StateError) { try device.restore(from: StateReader(bytes)) } catch {}
  }

  /// Reads, or writes for an odd `what`; 512 bytes of them with bit 3. Nothing is in flight after that.
  func `do`(_ access: Access) {
    time.pass(access.value << 16)
    let port = ports[Int(access.what >> 4) % ports.count]
    let width = min(1 << Int(access.what >> 1 & 3), port.widestAccess)
    let offset = UInt64(access.place) & ~UInt64(width - 1)
    if access.what & 8 != 0 {
      var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: access.value), count: 512)
      var span = bytes.mutableSpan
      if access.what & 1 == 0 {
        port.read(offset: offset, width: width, into: &span)
      } else {
        port.write(offset: offset, width: width, bytes: span.span)
      }
    } else if access.what & 1 == 0 {
      _ = port.read(offset: offset, width: width)
    } else {
      port.write(offset: offset, width: width, value: access.value & .max >> UInt64(64 - width * 8))
    }
    guard let ide else { return }
    let isStill = Flag()
    ide.pause { isStill.flag.store(true, ordering: .releasing) }
    while !isStill.flag.load(ordering: .acquiring) {}
    ide.resume()
  }

  func stop() { ide?.stop() }
}

// Full of zeros, as the disks are.
private let memory = try! GuestMemory(ramSize: 1 << 20)
private let time = Time()

private final class Time: Sendable {
  private let nanoseconds = Atomic<Int64>(0)
  var now: Int64 { nanoseconds.load(ordering: .relaxed) }
  func pass(_ count: UInt64) {
    nanoseconds.wrappingAdd(Int64(truncatingIfNeeded: count), ordering: .relaxed)
  }
}

private final class Flag: Sendable { let flag = Atomic(false) }

private final class Line: InterruptLine {
  func set(_ isRaised: Bool) {}
}

private final class Sink: ByteSink {
  func write(_ bytes: Span<UInt8>) {}
}

private final class Control: MachineControl {
  func requestPowerOff() {}
  func requestSuspend() {}
  func requestReset() {}
  func requestExit(_ value: UInt32) {}
}

private final class Doorbells: DoorbellHost {
  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool { true }
  func disconnect(_ doorbell: Doorbell, at place: BusAddress) {}
}

private final class Messages: MessageRouter, MessageRoute {
  func makeRoute(for event: SharedEvent) -> any MessageRoute { self }
  func set(_ message: InterruptMessage?) {}
}

/// A disk without contents that checks what it is asked for, and fails at every seventh sector.
private final class Disk: BlockStore {
  let size: UInt64
  var isReadOnly: Bool { false }

  init(sectors: UInt64) { size = sectors * 512 }

  private func check(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    precondition(count <= size && offset <= size - count, "beyond the end")
    precondition(offset % 512 == 0 && count % 512 == 0, "not of sectors")
    for sector in offset / 512..<(offset + count) / 512 where sector % 7 == 6 {
      throw .host(.inputOutput)
    }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try check(offset, UInt64(segments.byteCount))
    for segment in segments { segment.zero(0, count: segment.count) }
  }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    try check(offset, UInt64(segments.byteCount))
  }
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) { try check(offset, count) }
}
