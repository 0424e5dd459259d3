import Host

/// ACPI's general-purpose events as GPE0: 16 of them, whose status and enable registers share four
/// ports (ACPI 6.5, 4.8.4.1). What each is for AML says, in `\_GPE`.
package final class GeneralPurposeEvents: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "acpi-gpe" }
  /// Takes both registers in one piece.
  package var widestAccess: Int { 4 }

  private let line: any InterruptLine
  private let registers = RankedMutex(.registers, Registers())

  /// Status in the low half, enable in the high one, as the ports have them.
  private struct Registers {
    var status: UInt16 = 0
    var enable: UInt16 = 0
    var isRaised: Bool { status & enable != 0 }

    subscript(place: Int) -> UInt8 {
      let word = place & 2 == 0 ? status : enable
      return UInt8(truncatingIfNeeded: word >> (UInt16(place & 1) * 8))
    }

    /// Status is cleared by ones.
    mutating func write(_ byte: UInt8, at place: Int) {
      let shift = UInt16(place & 1) * 8
      let bits = UInt16(byte) << shift
      if place & 2 == 0 { status &= ~bits } else { enable = enable & ~(0xFF << shift) | bits }
    }
  }

  /// Events that raise `line`, an input of the SCI.
  package init(line: any InterruptLine) { self.line = line }

  /// Event `number`, 0 to 15, has come.
  package func raise(_ number: Int) {
    change { $0.status |= 1 << UInt16(truncatingIfNeeded: number & 15) }
  }

  /// Answers the registers' bytes.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    let registers = registers.withLock { $0 }
    return (0..<width).reduce(0) { value, index in
      value | UInt64(registers[Int(offset & 3) + index]) << UInt64(index * 8)
    }
  }

  /// Takes the registers' bytes.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    change { registers in
      for index in 0..<width {
        let byte = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
        registers.write(byte, at: Int(offset & 3) + index)
      }
    }
  }

  private func change(_ body: (inout Registers) -> Void) {
    registers.withLock { registers in
      let wasRaised = registers.isRaised
      body(&registers)
      if registers.isRaised != wasRaised { line.set(registers.isRaised) }
    }
  }
}

extension GeneralPurposeEvents: Stateful {
  /// Forgets what has come, and enables nothing.
  package func reset() { change { $0 = Registers() } }

  /// Writes both registers.
  package func save(to state: inout StateWriter) {
    let registers = registers.withLock { $0 }
    state.write("status", registers.status)
    state.write("enable", registers.enable)
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    let new = Registers(status: try state.read("status"), enable: try state.read("enable"))
    change { $0 = new }
  }
}
