import Synchronization

/// The reset control register of PIIX and ICH chipsets, one byte at port 0xCF9.
///
/// It stands at the four ports from 0xCF8 on and answers only byte accesses to its own: a 32-bit
/// write to 0xCF8 is a PCI configuration address, whose second byte must not pass for a reset.
package final class ResetControl: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "reset" }
  /// Takes up to four bytes in one piece, to tell them from a byte.
  package var widestAccess: Int { 4 }
  private let machine: any MachineControl
  private let value = Atomic<UInt8>(0)

  // PIIX3 datasheet, RC, and ICH, RST_CNT.
  private struct Bits: OptionSet {
    let rawValue: UInt8
    static let systemReset = Self(rawValue: 0x02)
    static let resetCPU = Self(rawValue: 0x04)
    static let fullReset = Self(rawValue: 0x08)
    static let all: Self = [.systemReset, .resetCPU, .fullReset]
  }

  /// A register that resets `machine`.
  package init(machine: any MachineControl) { self.machine = machine }

  /// Answers the register's bits at its port, and ones elsewhere.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    if isRegister(offset, width) { return UInt64(value.load(ordering: .relaxed)) }
    return (1 << UInt64(truncatingIfNeeded: width * 8)) &- 1
  }

  /// Sets the bits; a reset, soft or hard, starts when RCPU goes from 0 to 1.
  package func write(offset: UInt64, width: Int, value newValue: UInt64) {
    guard isRegister(offset, width) else { return }
    let new = Bits(rawValue: UInt8(truncatingIfNeeded: newValue)).intersection(.all)
    let old = Bits(rawValue: value.exchange(new.rawValue, ordering: .relaxed))
    if new.contains(.resetCPU) && !old.contains(.resetCPU) { machine.requestReset() }
  }

  private func isRegister(_ offset: UInt64, _ width: Int) -> Bool { offset == 1 && width == 1 }
}

extension ResetControl: Stateful {
  /// Makes the register as new.
  package func reset() { value.store(0, ordering: .relaxed) }

  /// Writes the bits.
  package func save(to state: inout StateWriter) {
    state.write("value", value.load(ordering: .relaxed))
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    value.store(try state.read("value", bits: Bits.all.rawValue), ordering: .relaxed)
  }
}
