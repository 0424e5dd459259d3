/// The debug console of Bochs and QEMU at port 0xE9: a byte written is a byte printed.
package final class DebugConsole: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "debugcon" }
  private let sink: any ByteSink

  /// A debug console that writes to `sink`.
  package init(sink: any ByteSink) { self.sink = sink }

  /// Answers 0xE9, by which a guest finds out that the console is there.
  package func read(offset: UInt64, width: Int) -> UInt64 { 0xE9 }

  /// Prints the byte.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    sink.write(CollectionOfOne(UInt8(truncatingIfNeeded: value)).span)
  }

  /// Prints all the bytes at once.
  package func write(offset: UInt64, width: Int, bytes: Span<UInt8>) { sink.write(bytes) }
}
