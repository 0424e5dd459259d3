import Host

/// What a guest has printed, in two files: when the newer one is full, the older one goes.
///
/// Where no file can be written, such as on a full disk, the newest part is in memory.
package final class ConsoleRecord: Sendable {
  /// The most that a file has, in bytes.
  package static let partSize = 1 << 20

  private struct Part {
    let file: SharedDescriptor
    /// How much came before it.
    let start: Int
    var count: Int
    var end: Int { start + count }
  }

  private struct State {
    var parts: [Part]
    /// Whether they have names.
    var isKept = true
  }

  private let renewal: Errand
  private let shared: Guarded<State>
  /// How much there was before this run.
  package let runStart: Int

  /// Goes on with the files at `path` and at the same with `.1` behind it.
  package init(at path: String) throws(Errno) {
    renewal = Errand(.renew(path, older: Self.older(path)))
    var parts: [Part] = []
    var start = 0
    for name in [Self.older(path), path] {
      guard name == path || FileDescriptor.exists(name) else { continue }
      let file = try FileDescriptor(opening: name, [.readWrite, .create], permissions: 0o600)
      let count = try file.status().count
      parts.append(Part(file: SharedDescriptor(file), start: start, count: count))
      start += count
    }
    runStart = start
    shared = Guarded(State(parts: parts))
  }

  /// The path of the older part.
  package static func older(_ path: String) -> String { path + ".1" }

  /// How much there was so far.
  package var end: Int { shared.locked { $0.parts.last?.end ?? 0 } }

  /// Appends `bytes`. Returns why they can't be kept in a file, the first time that they can't.
  package func append(_ bytes: Span<UInt8>) -> Errno? {
    shared.locked { state in
      do throws(Errno) { try append(bytes, &state) } catch {
        let isNews = state.isKept
        state.isKept = false
        // Without memory either, it is lost.
        if (try? begin(&state)) != nil { try? append(bytes, &state) }
        return isNews ? error : nil
      }
      return nil
    }
  }

  private func append(_ bytes: Span<UInt8>, _ state: inout State) throws(Errno) {
    if let part = state.parts.last, part.count >= Self.partSize { try begin(&state) }
    guard let part = state.parts.last else { return }
    try part.file.file.writeAll(bytes, at: part.count)
    state.parts[state.parts.count - 1].count += bytes.count
  }

  /// Begins a new part.
  private func begin(_ state: inout State) throws(Errno) {
    let file: SharedDescriptor
    if state.isKept {
      guard let renewed = try renewal.perform() else { throw .inputOutput }
      file = renewed
    } else {
      file = SharedDescriptor(try Subprocess.makeTemporaryFile([]))
    }
    let start = state.parts.last?.end ?? 0
    state.parts = state.parts.suffix(1)
    state.parts.append(Part(file: file, start: start, count: 0))
  }

  /// Up to `count` bytes from `position` on, or from the oldest that is there, and where they begin;
  /// none at the end.
  package func read(from position: Int, atMost count: Int) -> (start: Int, bytes: [UInt8]) {
    let part = shared.locked { state in
      state.parts.first { $0.end > position } ?? state.parts.last
    }
    guard let part, part.end > position else { return (position, []) }
    let start = max(position, part.start)
    var bytes = [UInt8](repeating: 0, count: min(count, part.end - start))
    var span = bytes.mutableSpan
    let read = (try? part.file.file.readAll(into: &span, at: start - part.start)) ?? 0
    bytes.removeLast(bytes.count - read)
    return (start, bytes)
  }
}
