/// A PCI bus with its functions: bus 0, the only one. Like any bus it is filled before the first VCPU
/// runs and never changes after; but ranges move.
package final class PCIBus: Sendable {
  /// Where functions can have ranges.
  package struct Windows: Sendable {
    /// Ports.
    package var ports: PCIWindow
    /// Memory below 4 GiB.
    package var memory32: PCIWindow
    /// Memory above RAM and 4 GiB, if there is room.
    package var memory64: PCIWindow?

    /// Takes the three as they are.
    package init(ports: PCIWindow, memory32: PCIWindow, memory64: PCIWindow?) {
      self.ports = ports
      self.memory32 = memory32
      self.memory64 = memory64
    }
  }

  /// A function that can't be there.
  package enum Failure: Error, Sendable {
    /// There is one at its address already.
    case taken(PCIAddress)
    /// All 32 devices are there.
    case full
  }

  /// The windows.
  package let windows: Windows
  /// The functions with their addresses, in order.
  package let functions: [(address: PCIAddress, function: PCIFunction)]

  private let byAddress: [PCIFunction?]
  private let ports: PCIRanges
  private let memory: PCIRanges

  /// A bus with `functions`, at most one at each address, whose pins go to `lines`.
  package init(
    _ functions: [(address: PCIAddress, function: PCIFunction)], _ windows: Windows,
    _ lines: PCIInterruptLines
  ) {
    let functions = functions.sorted { $0.address < $1.address }
    var byAddress = [PCIFunction?](repeating: nil, count: 256)
    for (address, function) in functions {
      precondition(byAddress[Int(address.byte)] == nil, "two functions at \(address)")
      byAddress[Int(address.byte)] = function
    }
    var ports: [PCIRanges.Range] = []
    var memory: [PCIRanges.Range] = []
    for (_, function) in functions {
      for bar in function.bars {
        let range = PCIRanges.Range(
          size: bar.size, device: bar.device, widestAccess: bar.device.widestAccess,
          name: function.name)
        if bar.kind == .port { ports.append(range) } else { memory.append(range) }
      }
    }
    self.windows = windows
    self.functions = functions
    self.byAddress = byAddress
    self.ports = PCIRanges(windows: [windows.ports], ports)
    self.memory = PCIRanges(
      windows: [windows.memory32] + (windows.memory64.map { [$0] } ?? []), memory)
    attach(lines)
  }

  /// Whether any function has an interrupt pin.
  package var hasPins: Bool { functions.contains { $0.function.hasPin } }

  private func attach(_ lines: PCIInterruptLines) {
    var port = 0
    var memory = 0
    for (address, function) in functions {
      var decoders: [(ranges: PCIRanges, index: Int)] = []
      for bar in function.bars {
        if bar.kind == .port {
          decoders.append((self.ports, port))
          port += 1
        } else {
          decoders.append((self.memory, memory))
          memory += 1
        }
      }
      let isMultifunction = functions.contains {
        $0.address.device == address.device && $0.address.function > 0
      }
      function.attach(
        decoders, isMultifunction: isMultifunction && address.function == 0,
        pin: PCIInterruptLines.pin(of: address) + 1,
        line: function.hasPin ? lines.line(for: address) : nil)
    }
  }

  // MARK: Configuration

  /// Reads `width` bytes (1, 2 or 4) of the function at `byte`; all ones where there is none.
  func readConfiguration(_ byte: UInt8, _ offset: UInt64, width: Int) -> UInt64 {
    guard let function = byAddress[Int(byte)] else {
      return UInt64.max >> UInt64(clamping: 64 - width * 8)
    }
    return function.readConfiguration(offset, width: width)
  }

  /// Writes `width` bytes (1, 2 or 4) of the function at `byte`; nothing happens where there is none.
  func writeConfiguration(_ byte: UInt8, _ offset: UInt64, width: Int, value: UInt64) {
    byAddress[Int(byte)]?.writeConfiguration(offset, width: width, value: value)
  }

  /// The name of the function at `byte`, if there is one.
  func name(_ byte: UInt8) -> StaticString? { byAddress[Int(byte)]?.name }

  // MARK: On the machine's buses

  /// What stands at the port window.
  package func makePortWindow() -> any Device {
    PCIWindowDevice("pci-ports", windows.ports, ports, widestAccess: 4)
  }

  /// What stands at the memory window below 4 GiB.
  package func makeMemoryWindow() -> any Device {
    PCIWindowDevice("pci-memory", windows.memory32, memory, widestAccess: 8)
  }

  /// What stands at the one above, if there is one.
  package func makeHighMemoryWindow() -> (any Device)? {
    windows.memory64.map { PCIWindowDevice("pci-memory64", $0, memory, widestAccess: 8) }
  }
}

// MARK: - State

extension PCIBus: Stateful {
  /// Resets all functions, so that none has a range. Where there is no firmware to do it, `assign`
  /// is to be called again.
  package func reset() {
    for (_, function) in functions { function.reset() }
  }

  /// Writes all functions, each by its address.
  package func save(to state: inout StateWriter) {
    for (address, function) in functions {
      state.group(address.description) { function.save(to: &$0) }
    }
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    for (address, function) in functions {
      try function.restore(from: state.group(address.description))
    }
  }
}
