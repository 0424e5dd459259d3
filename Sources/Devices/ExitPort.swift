/// Ends the run with a status, as QEMU's isa-debug-exit does.
///
/// It stands at four ports (0xF4 on), so that 8, 16 and 32-bit writes all arrive whole.
package final class ExitPort: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "exit" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }
  private let machine: any MachineControl

  /// An exit port that ends the run of `machine`.
  package init(machine: any MachineControl) { self.machine = machine }

  /// Answers 0, as isa-debug-exit does.
  package func read(offset: UInt64, width: Int) -> UInt64 { 0 }

  /// Asks for the end of the run with `value`, whichever of the ports it went to.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    machine.requestExit(UInt32(truncatingIfNeeded: value))
  }
}
