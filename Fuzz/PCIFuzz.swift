import Devices
import Host
import Memory
import Synchronization

/// Feeds a PCI bus with arbitrary accesses and checks that no range and no doorbell leaves its window.
///
/// The input: 12 bytes for each access: the space with the kind and the width, an offset of 24 bits,
/// and a value of 64 bits.
@_cdecl("LLVMFuzzerTestOneInput")
public func pciFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  let platform = PCIPlatform(memory: memory, doorbells: Doorbells(), messages: Messages())
  guard let functions = try? (0..<2).map({ _ in try makeFunction(platform) }),
    let bridge = try? PCIFunction.hostBridge(platform)
  else { return 0 }
  let lines = (0..<8).map { _ in Line() }
  let bus = PCIBus(
    [
      (PCIAddress(device: 0), bridge), (PCIAddress(device: 1), functions[0]),
      (PCIAddress(device: 1, function: 1), functions[1]),
    ], windows, PCIInterruptLines(ioapic: lines, pic: Array(lines.prefix(2))))
  bus.assign { _ in 10 }
  let ports = PCIConfigurationPorts(bus, reset: ResetControl(machine: Control()))
  let ecam = PCIConfigurationMemory(bus)
  let portWindow = bus.makePortWindow()
  let memoryWindow = bus.makeMemoryWindow()
  for access in stride(from: 0, to: input.count - 11, by: 12) {
    let kind = input[access]
    let offset = number(input[(access + 1)..<(access + 4)])
    let value = number(input[(access + 4)..<(access + 12)])
    let width = 1 << Int(kind >> 2 & 3)
    let (device, last): (any Device, UInt64) =
      switch kind & 3 {
      case 0: (ports, 8)
      case 1: (ecam, PCIConfigurationMemory.size)
      case 2: (portWindow, windows.ports.count)
      default: (memoryWindow, 1 << 20)
      }
    let place = offset % last
    let piece = min(width, device.widestAccess, Int(last - place).lowerPowerOfTwo)
    if kind & 0x80 == 0 {
      device.write(offset: place, width: piece, value: value & .max >> UInt64(64 - piece * 8))
    } else {
      let read = device.read(offset: place, width: piece)
      precondition(read <= .max >> UInt64(64 - piece * 8), "a read wider than asked")
    }
    for function in functions {
      for case (let bar, let range?) in zip(function.bars, function.places) {
        precondition(isInside(range, bar.size), "a range outside of its window")
      }
    }
  }
  return 0
}

private func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
  bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

extension Int {
  fileprivate var lowerPowerOfTwo: Int { 1 << (Int.bitWidth - 1 - leadingZeroBitCount) }
}

private let memory = try! GuestMemory(ramSize: GuestMemory.pageSize)
private let windows = PCIBus.Windows(
  ports: PCIWindow(start: 0xC000, count: 0x4000),
  memory32: PCIWindow(start: 0xC000_0000, count: 0x3E00_0000),
  memory64: PCIWindow(start: 0x1_0000_0000, count: 1 << 36))

private func isInside(_ place: BusAddress, _ size: UInt64) -> Bool {
  let (start, choices): (UInt64, [PCIWindow?]) =
    switch place {
    case .port(let port): (UInt64(port), [windows.ports])
    case .memory(let address): (address, [windows.memory32, windows.memory64])
    }
  return choices.contains { window in
    guard let window else { return false }
    return start >= window.start && start + size <= window.start + window.count
  }
}

private func makeFunction(_ platform: PCIPlatform) throws(Errno) -> PCIFunction {
  let slot = try PCISlot(platform, vectors: 3)
  slot.connect(try Doorbell(width: 4), bar: 0, offset: 12)
  let registers = Registers()
  return PCIFunction(
    name: "fuzzed", PCIIdentity(vendor: 0x1B36, device: 5, kind: .other), slot,
    bars: [
      PCIBAR(0, .memory32, size: 4096, registers), PCIBAR(2, .port, size: 16, registers),
      PCIBAR(4, .memory64, size: 65536, registers),
    ],
    capabilities: [
      PCICapability(id: 9, body: Array(repeating: 0, count: 6), writable: [0, 0xFF]),
      PCICapability(id: 9, body: Array(repeating: 0, count: 18), registers: registers),
    ], hasPin: true)
}

/// Raises its offset's pin and vector by nothing: its part is to be called with sound offsets.
private final class Registers: Device {
  var name: StaticString { "registers" }
  var widestAccess: Int { 4 }
  func read(offset: UInt64, width: Int) -> UInt64 {
    precondition(offset + UInt64(width) <= 65536)
    return 0
  }
  func write(offset: UInt64, width: Int, value: UInt64) {
    precondition(offset + UInt64(width) <= 65536)
  }
}

private final class Doorbells: DoorbellHost {
  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool {
    precondition(isInside(place, 4), "a doorbell outside of its window")
    return true
  }
  func disconnect(_ doorbell: Doorbell, at place: BusAddress) {}
}

private final class Messages: MessageRouter, MessageRoute {
  func makeRoute(for event: SharedEvent) -> any MessageRoute { self }
  func set(_ message: InterruptMessage?) {}
}

private final class Line: InterruptLine {
  func set(_ isRaised: Bool) {}
}

private final class Control: MachineControl {
  func requestPowerOff() {}
  func requestSuspend() {}
  func requestReset() {}
  func requestExit(_ value: UInt32) {}
}
