import Host
import Machine

extension VirtualMachine {
  /// A machine's console: what the guest prints to serial port, debug console and virtio console, and
  /// what is typed for it.
  public final class Console: Sendable {
    let log = ConsoleLog()
    let queue: ConsoleInputQueue

    init() throws(Errno) { queue = try ConsoleInputQueue() }

    /// Types `bytes`. The guest gets them as fast as it reads; nobody waits for that.
    public func write(_ bytes: some Sequence<UInt8>) { queue.write(Array(bytes)) }

    /// Types `text` in UTF-8, such as `"ls\n"`.
    public func write(_ text: String) { write(text.utf8) }

    /// What the guest has printed so far. Of a guest that prints without end only the last 16 MiB or
    /// more are kept.
    public var bytes: [UInt8] { log.bytes(from: 0).bytes }

    /// The same as UTF-8; what isn't UTF-8 shows as U+FFFD.
    public var text: String { String(decoding: bytes, as: UTF8.self) }

    /// What the guest prints, from the beginning, as it comes; ends with the run. Each loop over it
    /// gets all of it.
    public var output: Output { Output(log: log) }

    /// Waits until the guest has printed `text`, and returns what it printed up to its end. The next
    /// wait looks at what comes after that.
    ///
    /// Throws if the run ends first, if it lasts longer than `timeout`, or if the task is cancelled.
    @discardableResult
    public func wait(
      for text: String, timeout: Duration? = nil
    ) async throws(VirtualMachineError) -> String {
      let start = log.mark
      switch await log.wait(for: Array(text.utf8), from: start, timeout: timeout) {
      case .success(let end):
        log.mark = max(log.mark, end)
        let new = log.bytes(from: start)
        return String(decoding: new.bytes.dropLast(max(0, new.end - end)), as: UTF8.self)
      case .failure(let miss): throw VirtualMachineError(miss, text, log.bytes(from: 0).bytes)
      }
    }

    /// A guest's output in pieces.
    public struct Output: AsyncSequence, Sendable {
      let log: ConsoleLog

      /// Begins with the first byte that is kept.
      public func makeAsyncIterator() -> Iterator { Iterator(log: log) }

      /// Gives the pieces.
      public struct Iterator: AsyncIteratorProtocol {
        let log: ConsoleLog
        private var position = 0

        init(log: ConsoleLog) { self.log = log }

        /// Waits for more, and returns all that has come since; nil after the end of the run, or if the
        /// task is cancelled.
        public mutating func next() async -> [UInt8]? {
          guard case .success = await log.wait(for: [], from: position, timeout: nil) else {
            return nil
          }
          let new = log.bytes(from: position)
          position = new.end
          return new.bytes
        }
      }
    }
  }
}

extension VirtualMachineError {
  /// Why `text` was not seen in `output`.
  fileprivate init(_ miss: ConsoleLog.Miss, _ text: String, _ output: [UInt8]) {
    let (reason, when): (Reason, String) =
      switch miss {
      case .ended: (.hasEnded, "before the machine ended")
      case .timedOut: (.timedOut, "in time")
      case .cancelled: (.cancelled, "before the task was cancelled")
      }
    let tail = String(decoding: output.suffix(400), as: UTF8.self)
    self.init(
      reason, "the guest did not print \(text.debugDescription) \(when); it printed:\n\(tail)")
  }
}
