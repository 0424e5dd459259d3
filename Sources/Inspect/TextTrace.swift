import Devices
import Host
import KVM
import Machine
import Synchronization

/// Writes a trace as lines with aligned columns.
package final class TextTrace: TraceSink {
  private let file: FileDescriptor
  private let state = Mutex<(hasHeading: Bool, failure: String?)>((false, nil))
  private let mayWait = Atomic(true)
  /// How long a wait for the reader lasts before it is asked whether to go on, in milliseconds.
  private static let patience: Int32 = 100
  private let terminalLine: TerminalLine?

  /// Writes to the open file of this number, such as 2 for standard error. What others have begun to
  /// write on `terminalLine` gets a line feed first.
  package init(descriptor number: Int32, terminalLine: TerminalLine? = nil) {
    file = FileDescriptor(borrowing: number)
    self.terminalLine = terminalLine
  }

  /// What went wrong with the trace, if anything did.
  package var failure: String? { state.withLock { $0.failure } }

  /// Loses the lines that nobody reads by now.
  package func stopWaiting() { mayWait.store(false, ordering: .relaxed) }

  /// Writes one line; before the first, the heading.
  package func record(_ event: TraceEvent) {
    let line = Self.line(event)
    state.withLock { state in
      guard state.failure == nil, waitForReader() else { return }
      do throws(Errno) {
        let heading = state.hasHeading ? "" : Self.heading + "\n"
        state.hasHeading = true
        try file.writeAll((terminalLine?.takeEnd() ?? "") + heading + line + "\n")
      } catch {
        state.failure = "the trace can't be written: \(error)"
      }
    }
  }

  /// Nothing is held back.
  package func finish() {}

  /// Waits until there is room for a line; false if it must not wait any longer.
  private func waitForReader() -> Bool {
    while !file.isWritable(within: mayWait.load(ordering: .relaxed) ? Self.patience : 0) {
      if !mayWait.load(ordering: .relaxed) { return false }
    }
    return true
  }

  private static let heading =
    padLeft("seconds", 12) + "  " + pad("vcpu", 5) + pad("rip", 19) + pad(ExitLine.heading, 54)
    + pad("device", 10) + padLeft("handler", 10)

  private static func line(_ event: TraceEvent) -> String {
    let time = padLeft(seconds(event.left), 12)
    switch event.what {
    case .exit(let exit, let data, let device):
      return time + "  " + pad("\(event.vcpu ?? 0)", 5) + pad(hex(event.instructionPointer), 19)
        + pad(ExitLine.text(exit, data: data), 54) + pad("\(device ?? exit.absentDevice)", 10)
        + padLeft(microseconds(event.handled &- event.left), 10)
    case .interrupt(let gsi, let isRaised):
      return time + "  " + pad("-", 5) + pad("-", 19)
        + pad("irq", 10) + pad("\(gsi)", 12) + (isRaised ? "raised" : "lowered")
    case .request(let request, let source):
      return time + ofDevice("request", request.summary, pad(source, 44))
        + padLeft(microseconds(event.handled &- event.left), 10)
    case .doorbell(let source): return time + ofDevice("doorbell", "wakes the device", source)
    case .deviceInterrupt(let interrupt, let source):
      return time + ofDevice("irq", interrupt.summary, source)
    }
  }

  private static func ofDevice(_ kind: String, _ text: String, _ source: String) -> String {
    "  " + pad("-", 5) + pad("-", 19) + pad(kind, 10) + pad(text, 44) + source
  }

  private static func seconds(_ nanoseconds: UInt64) -> String {
    let micro = nanoseconds / 1000
    let fraction = String(micro % 1_000_000)
    return "\(micro / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
  }
}

extension Exit {
  /// What stands for the device of an exit that none answered.
  fileprivate var absentDevice: StaticString {
    switch self {
    case .portIO, .mmio: "(none)"
    default: "-"
    }
  }
}

extension DeviceRequest {
  /// In words, such as `read sector 8, 4096 bytes: ok`.
  var summary: String {
    "\(operation)" + (sector.map { " sector \($0)" } ?? "")
      + (bytes > 0 ? "\(sector == nil ? "" : ",") \(bytes) bytes" : "") + ": \(result.rawValue)"
  }
}

extension DeviceInterrupt {
  /// Such as `MSI-X vector 1`.
  var summary: String {
    switch self {
    case .message(let vector): "MSI-X vector \(vector)"
    case .line: "line"
    case .none: "none"
    }
  }
}

/// `nanoseconds` as microseconds with one decimal, as in `1.2us`.
func microseconds(_ nanoseconds: UInt64) -> String {
  "\(nanoseconds / 1000).\(nanoseconds % 1000 / 100)us"
}
