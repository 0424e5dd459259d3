import Devices
import Host
import Memory

/// The machine's PCI bus in the making: functions come one by one, then there is a bus.
struct PCIWiring {
  /// What devices are given.
  let platform: PCIPlatform
  /// The interrupt inputs that pins drive.
  let lines: [KVMInterruptLine]
  private let router: PCIInterruptLines
  private var functions: [(address: PCIAddress, function: PCIFunction)] = []

  init(_ platform: PCIPlatform, _ trace: TraceSinks?) throws(Errno) {
    self.platform = platform
    let ioapic = Layout.pciInterrupts.map { KVMInterruptLine(gsi: $0, trace: trace) }
    let pic = Layout.pciISAInterrupts.map { KVMInterruptLine(gsi: UInt32($0), trace: trace) }
    lines = ioapic + pic
    router = PCIInterruptLines(ioapic: ioapic, pic: pic)
    functions = [(PCIAddress(device: 0), try .hostBridge(platform))]
  }

  /// Puts `function` at `address`, or else at the next device that is free from 2 on; device 1 is for
  /// the chip set.
  mutating func add(_ function: PCIFunction, at address: PCIAddress? = nil) throws(MachineError) {
    if let address {
      precondition(!functions.contains { $0.address == address }, "two functions at \(address)")
      functions.append((address, function))
      return
    }
    guard let free = nextPlace else {
      throw .configuration("a PCI bus has room for 30 devices: \(function.name) is one too many")
    }
    functions.append((free, function))
  }

  /// Where the next function will be; nil if there is no room.
  var nextPlace: PCIAddress? {
    (2..<32 as Range<UInt8>).first { device in
      !functions.contains { $0.address.device == device }
    }.map { PCIAddress(device: $0) }
  }

  /// The bus of a machine with so much RAM whose processors have `addressBits` bits of address.
  func makeBus(ramSize: UInt64, addressBits: Int) -> PCIBus {
    PCIBus(functions, Layout.pciWindows(ramSize: ramSize, addressBits: addressBits), router)
  }

  /// What firmware notes as the interrupt of a function's pin.
  static func isaInterrupt(_ address: PCIAddress) -> UInt8 {
    let choices = Layout.pciISAInterrupts
    return choices[
      PCIInterruptLines.line(
        device: address.device, pin: PCIInterruptLines.pin(of: address), count: choices.count)]
  }

  /// The IOAPIC's input of a device's pin, 0 for INTA# to 3.
  static func globalInterrupt(device: UInt8, pin: UInt8) -> UInt32 {
    let choices = Layout.pciInterrupts
    return choices.lowerBound
      + UInt32(PCIInterruptLines.line(device: device, pin: pin, count: choices.count))
  }
}
