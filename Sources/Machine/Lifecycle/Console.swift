import Devices
import Host

/// Keeps what a guest writes, for tests and tools.
package final class ConsoleBuffer: ByteSink {
  private let contents = RankedMutex<[UInt8]>(.last, [])

  /// Makes an empty one.
  package init() {}

  /// Appends `bytes`.
  package func write(_ bytes: Span<UInt8>) {
    contents.withLock { for index in bytes.indices { $0.append(bytes[index]) } }
  }

  /// Everything so far.
  package var bytes: [UInt8] { contents.withLock { $0 } }

  /// Everything so far, as UTF-8; what isn't UTF-8 shows as U+FFFD.
  package var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// Writes a guest's bytes to an open file at once.
///
/// A slow reader slows the guest down. A write that fails for good ends the run.
final class DescriptorSink: ByteSink {
  private let file: FileDescriptor
  private let control: RunControl
  private let dropsWhatNobodyReads: Bool
  private let terminalLine: TerminalLine?

  init(
    _ number: Int32, _ control: RunControl, dropsWhatNobodyReads: Bool = false,
    terminalLine: TerminalLine? = nil
  ) {
    self.terminalLine = terminalLine
    self.dropsWhatNobodyReads = dropsWhatNobodyReads
    file = FileDescriptor(borrowing: number)
    self.control = control
  }

  func write(_ bytes: Span<UInt8>) {
    if let terminalLine, !bytes.isEmpty { terminalLine.note(bytes[bytes.count - 1]) }
    var done = 0
    while done < bytes.count {
      do throws(Errno) {
        done += try file.write(bytes.extracting(done..<bytes.count))
      } catch .interrupted {
        // A kick: a VCPU that is to stop must not wait for its reader.
        if control.isEnding { return }
      } catch .tryAgain {
        if dropsWhatNobodyReads { return }
        file.waitUntilWritable()
        if control.isEnding { return }
      } catch {
        control.finish(.hostFailed("the guest's output can't be written: \(error)"))
        return
      }
    }
  }
}

/// Writes a guest's bytes to one place, and then to another.
final class TwoSinks: ByteSink {
  private let one: any ByteSink, other: any ByteSink

  init(_ one: any ByteSink, _ other: any ByteSink) { (self.one, self.other) = (one, other) }

  func write(_ bytes: Span<UInt8>) {
    one.write(bytes)
    other.write(bytes)
  }
}

/// Drops a guest's bytes.
final class NullSink: ByteSink {
  func write(_ bytes: Span<UInt8>) {}
}
