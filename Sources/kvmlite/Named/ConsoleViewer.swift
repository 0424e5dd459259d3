import Host
import Machine
import Synchronization

/// A machine's console as another process sees it: a stream to its hub.
final class ConsoleViewer: Sendable {
  private let stream: UnixSocket
  private let mayType: Bool
  private let hasLeft = Atomic(false)

  /// Asks `machine`'s process for it.
  init(
    _ machine: KnownMachine, _ client: borrowing ControlClient, from start: ConsoleHub.Start,
    mayType: Bool
  ) throws(Failure) {
    self.mayType = mayType
    var other: UnixSocket?
    do throws(Errno) { stream = try UnixSocket(pairedWith: &other) } catch {
      throw Failure(status: 71, message: "no stream can be made: \(error)")
    }
    let members = [
      JSON.Member("from", JSON(.string(start.rawValue))),
      JSON.Member("input", JSON(.bool(mayType))),
    ]
    let file = other?.descriptor.number ?? -1
    do throws(ControlClient.Trouble) {
      try client.ask(.attach, members, files: [file], until: KnownMachine.deadline)
    } catch { throw Failure(error, machine) }
  }

  /// Calls `body` with what comes until that returns false, which is true; false when the machine ends
  /// before, nil if neither has happened at `deadline`.
  func read(until deadline: UInt64 = .max, _ body: (Span<UInt8>) -> Bool) -> Bool? {
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    while stream.descriptor.isReadable(until: deadline) {
      var span = buffer.mutableSpan
      var files: [SharedDescriptor] = []
      guard let count = try? stream.receive(into: &span, files: &files) else { continue }
      guard count > 0 else { return false }
      if !body(buffer.span.extracting(0..<count)) { return true }
    }
    return nil
  }

  /// Shows what comes, and passes on what is typed, until the machine ends; false if the user leaves
  /// before, by Ctrl-A Q at a terminal or by closing standard output.
  func show(isTerminal: Bool) -> Bool {
    if mayType {
      // It waits for keys until the process ends.
      _ = try? HostThread.start(name: "keyboard") { self.passKeys(isTerminal) }.detach()
    }
    let output = FileDescriptor(borrowing: 1)
    let isFull = read { bytes in (try? output.writeAll(bytes)) != nil } ?? true
    return !isFull && !hasLeft.load(ordering: .acquiring)
  }

  private func passKeys(_ isTerminal: Bool) {
    let keyboard = FileDescriptor(borrowing: 0)
    var escape = EscapeKey()
    while let bytes = try? keyboard.read(atMost: 4096), !bytes.isEmpty {
      let passed = isTerminal ? escape.filter(bytes) { obey($0) } : bytes
      guard send(passed) else { return }
    }
  }

  private func obey(_ key: UInt8) {
    guard key == UInt8(ascii: "q") else {
      return EscapeKey.help(key, "Ctrl-A Q       leave the machine to itself")
    }
    hasLeft.store(true, ordering: .releasing)
    stream.end()
  }

  /// Waits for the guest to have room; false when nothing more can be sent.
  private func send(_ bytes: [UInt8]) -> Bool {
    var done = 0
    while done < bytes.count {
      do throws(Errno) {
        done += try stream.sendPart(bytes.span.extracting(done..<bytes.count))
      } catch .tryAgain { stream.descriptor.waitUntilWritable() } catch { return false }
    }
    return true
  }
}
