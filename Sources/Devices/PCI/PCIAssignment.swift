extension PCIBus {
  /// Gives every range an address and every pin its interrupt, and switches the ranges on, as firmware
  /// would (PCI 3.0, 6.2.5). What finds no room stays off.
  ///
  /// `interrupt` is the ISA interrupt of a function's pin.
  package func assign(interrupt: (PCIAddress) -> UInt8) {
    var ports = PCIRoom(windows.ports)
    var memory32 = PCIRoom(windows.memory32)
    var memory64 = windows.memory64.map(PCIRoom.init)
    // From large to small nothing is lost between them.
    let bars = functions.flatMap { entry in entry.function.bars.map { (entry.function, $0) } }
      .sorted { $0.1.size > $1.1.size }
    for (function, bar) in bars {
      let start: UInt64?
      switch bar.kind {
      case .port: start = ports.take(bar.size)
      case .memory32: start = memory32.take(bar.size)
      case .memory64:
        // Small ones go where a kernel of 32 bits reaches them.
        let high = bar.size > Self.largestLow ? memory64?.take(bar.size) : nil
        start = high ?? memory32.take(bar.size) ?? memory64?.take(bar.size)
      }
      if let start { function.assign(bar, at: start) }
    }
    for (address, function) in functions {
      function.enableRanges()
      if function.hasPin { function.assign(interrupt: interrupt(address)) }
    }
  }

  private static var largestLow: UInt64 { 64 << 20 }
}

/// What is free of a window.
private struct PCIRoom {
  private var next: UInt64
  private let window: PCIWindow

  init(_ window: PCIWindow) {
    self.window = window
    next = window.start
  }

  /// Takes `size`, a power of two, on a boundary of its own.
  mutating func take(_ size: UInt64) -> UInt64? {
    let (sum, overflow) = next.addingReportingOverflow(size - 1)
    let start = sum & ~(size - 1)
    guard !overflow, window.holds(start, size) else { return nil }
    next = start + size
    return start
  }
}

extension PCIFunction {
  private typealias Offset = PCIConfigurationSpace.Offset

  fileprivate func assign(_ bar: PCIBAR, at start: UInt64) {
    let offset = UInt64(Offset.bars + 4 * bar.index)
    writeConfiguration(offset, width: 4, value: start & 0xFFFF_FFFF)
    if bar.kind == .memory64 { writeConfiguration(offset + 4, width: 4, value: start >> 32) }
  }

  fileprivate func enableRanges() {
    // Bits of spaces in which it has nothing stay zero.
    let both: PCIConfigurationSpace.Command = [.portSpace, .memorySpace]
    writeConfiguration(UInt64(Offset.command), width: 2, value: UInt64(both.rawValue))
  }

  fileprivate func assign(interrupt: UInt8) {
    writeConfiguration(UInt64(Offset.interruptLine), width: 1, value: UInt64(interrupt))
  }
}
