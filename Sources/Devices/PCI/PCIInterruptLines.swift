/// Where the pins of functions go: to inputs of the IOAPIC and, for kernels that use the 8259s, to
/// ISA interrupts. Which one follows from device and pin alone, so that tables can say it.
package struct PCIInterruptLines: Sendable {
  private let ioapic: [SharedInterruptLine]
  private let pic: [SharedInterruptLine]

  /// Takes the IOAPIC's inputs and the ISA interrupts' lines, both powers of two in number, all level
  /// triggered.
  package init(ioapic: [any InterruptLine], pic: [any InterruptLine]) {
    self.ioapic = ioapic.map(SharedInterruptLine.init)
    self.pic = pic.map(SharedInterruptLine.init)
  }

  /// The pin of the function at `address`: 0 for INTA# to 3, by its number in the device.
  package static func pin(of address: PCIAddress) -> UInt8 { address.function & 3 }

  /// The number of the line among `count` that pin `pin` of `device` goes to. Neighbours' pins go to
  /// different lines, as slots are wired.
  package static func line(device: UInt8, pin: UInt8, count: Int) -> Int {
    (Int(device) + Int(pin)) % count
  }

  /// A line for the pin of the function at `address`.
  func line(for address: PCIAddress) -> any InterruptLine {
    func input(_ lines: [SharedInterruptLine]) -> any InterruptLine {
      lines[Self.line(device: address.device, pin: Self.pin(of: address), count: lines.count)]
        .makeInput()
    }
    return Pair(input(ioapic), input(pic))
  }

  private final class Pair: InterruptLine {
    private let first: any InterruptLine
    private let second: any InterruptLine

    init(_ first: any InterruptLine, _ second: any InterruptLine) {
      self.first = first
      self.second = second
    }

    func set(_ isRaised: Bool) {
      first.set(isRaised)
      second.set(isRaised)
    }
  }
}
