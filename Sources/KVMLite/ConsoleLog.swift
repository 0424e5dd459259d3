import Devices
import Synchronization

/// Keeps what a guest prints, and tells those who wait for something in it.
///
/// Who prints looks for the text himself: a waiting task is woken once, however many bytes come singly.
final class ConsoleLog: ByteSink {
  /// Why a wait was in vain.
  enum Miss: Error {
    case ended, timedOut, cancelled
  }

  /// The position behind what was waited for.
  typealias Answer = Result<Int, Miss>

  fileprivate struct Wait {
    /// Empty for any byte.
    let text: [UInt8]
    /// Before here there is no end of `text`.
    var next: Int
    let continuation: CheckedContinuation<Answer, Never>
  }

  fileprivate enum Entry {
    /// Its task is about to wait.
    case coming
    /// It need not any more.
    case missed(Miss)
    case waiting(Wait)
  }

  fileprivate struct State {
    var bytes: [UInt8] = []
    /// How many were dropped before these. Positions count them, too.
    var dropped = 0
    var mark = 0
    var hasEnded = false
    var entries: [Int: Entry] = [:]
    var lastID = 0

    var end: Int { dropped + bytes.count }
  }

  /// At least so many bytes are kept.
  private static let limit = 16 << 20

  private let shared = Mutex(State())

  /// Where the last text that was waited for has its end.
  var mark: Int {
    get { shared.withLock { $0.mark } }
    set { shared.withLock { $0.mark = newValue } }
  }

  /// What is kept from `position` on, and the position behind it.
  func bytes(from position: Int) -> (bytes: [UInt8], end: Int) {
    shared.withLock { state in
      (Array(state.bytes.dropFirst(max(0, position - state.dropped))), state.end)
    }
  }

  // MARK: Printing

  func write(_ bytes: Span<UInt8>) {
    let answers = shared.withLock { state in
      for index in bytes.indices { state.bytes.append(bytes[index]) }
      let answers = state.entries.isEmpty ? [] : state.answerFound()
      if state.bytes.count >= 2 * Self.limit {
        state.dropped += state.bytes.count - Self.limit
        state.bytes.removeFirst(state.bytes.count - Self.limit)
      }
      return answers
    }
    guard !answers.isEmpty else { return }
    ConfinedThreads.wake {
      for (continuation, answer) in answers { continuation.resume(returning: answer) }
    }
  }

  /// Nothing more comes.
  func end() {
    let waits = shared.withLock { state in
      state.hasEnded = true
      let waits = state.waits
      for (id, _) in waits { state.entries[id] = nil }
      return waits
    }
    guard !waits.isEmpty else { return }
    ConfinedThreads.wake {
      for (_, wait) in waits { wait.continuation.resume(returning: .failure(.ended)) }
    }
  }

  // MARK: Waiting

  /// Waits until `text` has come, behind the position `start`; for any byte there if it is empty.
  func wait(for text: [UInt8], from start: Int, timeout: Duration?) async -> Answer {
    let id = shared.withLock { state in
      state.lastID += 1
      state.entries[state.lastID] = .coming
      return state.lastID
    }
    guard let timeout else { return await wait(id, text, start) }
    return await withTaskGroup(of: Void.self) { group in
      // A child of the task that waits, so that it runs where that does.
      group.addTask {
        try? await Task.sleep(for: timeout)
        if !Task.isCancelled { self.giveUp(id, .timedOut) }
      }
      defer { group.cancelAll() }
      return await wait(id, text, start)
    }
  }

  private func wait(_ id: Int, _ text: [UInt8], _ start: Int) async -> Answer {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let next = start + max(1, text.count)
        let answer = shared.withLock { state in
          state.begin(id, Wait(text: text, next: next, continuation: continuation))
        }
        if let answer { continuation.resume(returning: answer) }
      }
    } onCancel: {
      giveUp(id, .cancelled)
    }
  }

  private func giveUp(_ id: Int, _ miss: Miss) {
    let wait = shared.withLock { state -> Wait? in
      switch state.entries[id] {
      case .coming: state.entries[id] = .missed(miss)
      case .waiting(let wait):
        state.entries[id] = nil
        return wait
      case .missed, nil: break
      }
      return nil
    }
    wait?.continuation.resume(returning: .failure(miss))
  }
}

extension ConsoleLog.State {
  fileprivate var waits: [(id: Int, wait: ConsoleLog.Wait)] {
    entries.compactMap { id, entry in
      if case .waiting(let wait) = entry { (id, wait) } else { nil }
    }
  }

  /// Lets `wait` wait, unless it can be answered now.
  fileprivate mutating func begin(_ id: Int, _ wait: ConsoleLog.Wait) -> ConsoleLog.Answer? {
    let entry = entries.removeValue(forKey: id)
    var wait = wait
    if let end = find(&wait) { return .success(end) }
    if case .missed(let miss) = entry { return .failure(miss) }
    if hasEnded { return .failure(.ended) }
    entries[id] = .waiting(wait)
    return nil
  }

  /// Takes out those whose text has come.
  fileprivate mutating func answerFound()
    -> [(CheckedContinuation<ConsoleLog.Answer, Never>, ConsoleLog.Answer)]
  {
    var answers: [(CheckedContinuation<ConsoleLog.Answer, Never>, ConsoleLog.Answer)] = []
    for (id, wait) in waits {
      var wait = wait
      if let end = find(&wait) {
        entries[id] = nil
        answers.append((wait.continuation, .success(end)))
      } else {
        entries[id] = .waiting(wait)
      }
    }
    return answers
  }

  /// Looks for the text in what has come since the last look; the position behind it if it is there.
  private func find(_ wait: inout ConsoleLog.Wait) -> Int? {
    guard !wait.text.isEmpty else { return end >= wait.next ? end : nil }
    wait.next = max(wait.next, dropped + wait.text.count)
    while wait.next <= end {
      let last = wait.next - dropped
      if bytes[(last - wait.text.count)..<last].elementsEqual(wait.text) { return wait.next }
      wait.next += 1
    }
    return nil
  }
}
