import Host
import Memory

/// The Virtual Machine Generation ID: 128 bits that are others whenever a machine goes on from a state
/// that another one may go on from, too (Microsoft, "Virtual Machine Generation ID", 2012).
///
/// They are at the beginning of a page that the guest can't write, which ACPI tells of: reads don't get
/// here. The page goes with the memory, and stays what it is in a reset.
package final class GenerationID: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "vmgenid" }
  /// Sees writes whole, to ignore them.
  package var widestAccess: Int { 8 }

  private let memory: GuestMemory
  private let place: GuestAddress
  private let announcement: @Sendable () -> Void

  /// How many bytes it has.
  package static let size = 16

  /// That in the page at `place`; `announce` is how a running guest learns of a new one.
  package init(
    _ memory: GuestMemory, at place: GuestAddress, announce: @escaping @Sendable () -> Void
  ) {
    self.memory = memory
    self.place = place
    announcement = announce
  }

  /// Draws a new one. Nothing moves.
  package func draw() throws(Errno) {
    var bytes = [UInt8](repeating: 0, count: Self.size)
    var span = bytes.mutableSpan
    try RandomBytes.fill(&span)
    do { try memory.write(bytes.span, at: place) } catch { throw .badAddress }
  }

  /// Tells the guest that there is a new one.
  package func announce() { announcement() }

  /// Answers ones.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    .max >> UInt64(clamping: 64 - width * 8)
  }

  /// Ignores what a guest writes.
  package func write(offset: UInt64, width: Int, value: UInt64) {}
}
