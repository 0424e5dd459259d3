import Devices
import Host
import Synchronization

/// A named machine's console: keeps what the guest prints, and shows it to any number of viewers, who
/// may type. None of them is waited for: one who is slow gets what the record still has.
package final class ConsoleHub: ByteSink, Sendable {
  /// Where what a viewer is shown begins.
  package enum Start: String, CaseIterable, Sendable {
    /// Where the last viewer who left had come to, or a little before the end.
    case missed
    /// At the beginning of this run.
    case run
    /// With the oldest that is kept, of whichever run.
    case oldest
    /// With what comes.
    case now
  }

  /// Only the worker's thread touches what changes in it, but for its making.
  private final class Viewer: @unchecked Sendable {
    let socket: UnixSocket
    let mayType: Bool
    var position: Int
    /// What was typed and has no room in the pipe yet.
    var typed: [UInt8] = []
    var place: Int?
    init(_ socket: consuming UnixSocket, at position: Int, mayType: Bool) {
      self.socket = socket
      self.position = position
      self.mayType = mayType
    }
  }

  private struct State {
    var viewers: [Viewer] = []
    /// Where the last viewer who left had come to.
    var seen = 0
  }

  private let record: ConsoleRecord
  private let report: @Sendable (String) -> Void
  private let worker: Worker
  private let printed: Event
  private let hasViewers = Atomic(false)
  private let state: RankedMutex<State>
  /// What is typed, on its way to the guest.
  private let keys: (reading: SharedDescriptor, writing: SharedDescriptor)

  /// So much of what is no news is shown all the same: a screen or two.
  private static let context = 4096
  private static let chunk = 16 << 10
  /// Viewers at a time.
  private static let mostViewers = 128
  /// How long viewers have for the last of it, in nanoseconds.
  private static let patience: UInt64 = 1_000_000_000

  /// A console that keeps what is printed in `record`; `report` hears if that fails.
  package init(
    _ record: ConsoleRecord, report: @escaping @Sendable (String) -> Void
  ) throws(Errno) {
    self.record = record
    self.report = report
    worker = try Worker(name: "console")
    printed = try Event()
    state = RankedMutex(.last, State(seen: record.runStart))
    keys = try Pipe().shared()
    keys.writing.file.neverWait()
  }

  /// What viewers type.
  package var input: ConsoleInput { .descriptor(keys.reading.file.number) }

  /// Keeps `bytes`, and lets viewers have them.
  package func write(_ bytes: Span<UInt8>) {
    if let error = record.append(bytes) {
      report("the console's record can't be kept: \(error); the newest part is in memory")
    }
    if hasViewers.load(ordering: .sequentiallyConsistent) { printed.raise() }
  }

  // MARK: Viewers

  /// Shows the console at `socket`, a stream, until its other side closes it; false if there are too
  /// many.
  package func show(
    at socket: consuming UnixSocket, from start: Start, mayType: Bool
  ) throws(Errno) -> Bool {
    if !hasViewers.exchange(true, ordering: .sequentiallyConsistent) { try begin() }
    let viewer = Viewer(socket, at: position(of: start), mayType: mayType)
    let isRoom = state.withLock { state in
      guard state.viewers.count < Self.mostViewers else { return false }
      state.viewers.append(viewer)
      return true
    }
    if isRoom { try worker.post { [weak self] in self?.serve(viewer) } }
    return isRoom
  }

  private func position(of start: Start) -> Int {
    let end = record.end
    switch start {
    case .missed:
      let recent = max(record.runStart, end - Self.context)
      return min(recent, state.withLock { $0.seen })
    case .run: return record.runStart
    case .oldest: return 0
    case .now: return end
    }
  }

  /// Has the thread watch the guest's side; once.
  private func begin() throws(Errno) {
    try worker.watch(printed) { [weak self] in self?.showAll() }
    try worker.watch(keys.writing.file, on: .socketEdge) { [weak self] in self?.passAll() }
  }

  private func serve(_ viewer: Viewer) {
    viewer.place = try? worker.watch(viewer.socket.descriptor, on: .socketEdge) {
      [weak self, weak viewer] in
      guard let self, let viewer else { return }
      show(viewer)
      pass(viewer)
    }
    if viewer.place == nil { drop(viewer) }
  }

  private var viewers: [Viewer] { state.withLock { $0.viewers } }

  private func drop(_ viewer: Viewer) {
    if let place = viewer.place.take() { worker.ignore(viewer.socket.descriptor, at: place) }
    state.withLock { state in
      state.viewers.removeAll { $0 === viewer }
      state.seen = max(state.seen, viewer.position)
    }
  }

  // MARK: Output

  private func showAll() { for viewer in viewers { show(viewer) } }

  /// Sends as much as there is room for; true if that was all.
  @discardableResult
  private func show(_ viewer: Viewer) -> Bool {
    do throws(Errno) {
      while true {
        let (start, bytes) = record.read(from: viewer.position, atMost: Self.chunk)
        guard !bytes.isEmpty else { return true }
        if start > viewer.position {
          let gap = "\r\n[kvmlite: \(start - viewer.position) bytes are lost: read faster]\r\n"
          _ = try viewer.socket.sendPart(Array(gap.utf8).span)
        }
        viewer.position = start
        viewer.position += try viewer.socket.sendPart(bytes.span)
      }
    } catch .tryAgain { return false } catch {
      drop(viewer)
      return true
    }
  }

  // MARK: Input

  private func passAll() { for viewer in viewers where viewer.mayType { pass(viewer) } }

  /// Takes what was typed for as long as the guest has room for it.
  private func pass(_ viewer: Viewer) {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      guard passTyped(viewer) else { return }
      var span = buffer.mutableSpan
      var files: [SharedDescriptor] = []
      do throws(Errno) {
        guard let count = try viewer.socket.receive(into: &span, files: &files) else { return }
        guard count > 0 else { return drop(viewer) }
        if viewer.mayType { viewer.typed = Array(buffer[..<count]) }
      } catch { return drop(viewer) }
    }
  }

  /// Puts into the pipe what was typed; false if it has no room for all of it.
  private func passTyped(_ viewer: Viewer) -> Bool {
    while !viewer.typed.isEmpty {
      do throws(Errno) {
        let typed = viewer.typed
        viewer.typed = Array(typed.dropFirst(try keys.writing.file.write(typed.span)))
      } catch { return false }
    }
    return true
  }

  // MARK: End

  /// Shows the last of it to those who read, and sends all away.
  package func end() {
    guard hasViewers.load(ordering: .sequentiallyConsistent) else { return }
    let deadline = Clock.monotonicNanoseconds &+ Self.patience
    worker.stop()
    for viewer in viewers {
      while !show(viewer), Clock.monotonicNanoseconds < deadline {
        _ = viewer.socket.descriptor.isWritable(within: 50)
      }
      drop(viewer)
    }
  }
}
