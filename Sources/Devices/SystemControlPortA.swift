import Synchronization

/// System control port A of the PS/2 at port 0x92: the fast reset and the fast A20 gate.
///
/// A20 always passes; the guest only reads back what it has set.
package final class SystemControlPortA: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "port92" }
  private let machine: any MachineControl
  private let value = Atomic<UInt8>(Bits.alternateA20Gate.rawValue)

  private struct Bits: OptionSet {
    let rawValue: UInt8
    static let alternateHotReset = Self(rawValue: 0x01)
    static let alternateA20Gate = Self(rawValue: 0x02)
    // The rest is reserved and reads zero (PIIX4, section 4.2.5.1).
    static let all: Self = [.alternateHotReset, .alternateA20Gate]
  }

  /// A port that resets `machine`.
  package init(machine: any MachineControl) { self.machine = machine }

  /// Answers the bits as they were written.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    UInt64(value.load(ordering: .relaxed))
  }

  /// Sets the bits; a reset starts when its bit goes from 0 to 1.
  package func write(offset: UInt64, width: Int, value newValue: UInt64) {
    let new = Bits(rawValue: UInt8(truncatingIfNeeded: newValue)).intersection(.all)
    let old = Bits(rawValue: value.exchange(new.rawValue, ordering: .relaxed))
    if new.contains(.alternateHotReset) && !old.contains(.alternateHotReset) {
      machine.requestReset()
    }
  }
}

extension SystemControlPortA: Stateful {
  /// Makes the port as new.
  package func reset() { value.store(Bits.alternateA20Gate.rawValue, ordering: .relaxed) }

  /// Writes the bits.
  package func save(to state: inout StateWriter) {
    state.write("value", value.load(ordering: .relaxed))
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    value.store(try state.read("value", bits: Bits.all.rawValue), ordering: .relaxed)
  }
}
