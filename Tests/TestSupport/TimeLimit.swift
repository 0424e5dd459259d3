import Foundation
import Glibc
import Host
import Synchronization
import Testing

/// Gives each test a thread of its own when it is its turn, and ends the run of the tests, and names the
/// test, when one takes longer than its time.
///
/// Swift Testing's own `.timeLimit` cancels a task. A test that spins in code of ours, or waits for
/// what never comes, doesn't notice that: only a thread beside it can tell, and end the process.
package struct TimeLimit: EachCase {
  let minutes: Int

  /// Runs a test, and watches it.
  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let location = test.sourceLocation
    let name = "\"\(test.displayName ?? test.name)\" (\(location.fileID):\(location.line))"
    try await OwnThread.run {
      let ticket = TestWatch.shared.begin(name, seconds: Self.seconds(minutes))
      defer { TestWatch.shared.end(ticket) }
      try await function()
    }
  }

  /// KVMLITE_TEST_SECONDS, where somebody is sure to wait for a hang, else `minutes`: twice as many on
  /// a host made of software, since tests run one by one there.
  private static func seconds(_ minutes: Int) -> Double {
    if let told = ProcessInfo.processInfo.environment["KVMLITE_TEST_SECONDS"].flatMap(Double.init) {
      return told
    }
    return Double(minutes) * 60 * min(2, Deadline.patience)
  }
}

extension Trait where Self == TimeLimit {
  /// Ends the run, and names the test, when one takes longer than ten minutes.
  package static var limited: Self { limited(minutes: 10) }

  /// Ends the run, and names the test, when one takes longer than `minutes`.
  package static func limited(minutes: Int) -> Self { TimeLimit(minutes: minutes) }
}

/// The tests that run now, and a thread that looks at them.
private final class TestWatch: Sendable {
  static let shared = TestWatch()

  private struct Running {
    let name: String
    let start: UInt64
    let limit: UInt64
  }

  private struct State {
    var next = 0
    var tests: [Int: Running] = [:]
    /// When the last one ended.
    var lastEnd: UInt64 = 0
  }

  private let state = Mutex(State())

  private init() {
    Thread.detachNewThread { [self] in
      while true {
        sleep(1)
        look()
      }
    }
  }

  func begin(_ name: String, seconds: Double) -> Int {
    let now = Clock.monotonicNanoseconds
    return state.withLock {
      $0.next += 1
      $0.tests[$0.next] = Running(name: name, start: now, limit: UInt64(seconds * 1e9))
      return $0.next
    }
  }

  func end(_ ticket: Int) {
    let now = Clock.monotonicNanoseconds
    state.withLock {
      $0.tests[ticket] = nil
      $0.lastEnd = now
    }
  }

  /// Ends the process if a test's time is up: since it started, and since another ended. Which thread is in
  /// which test nobody can ask, so all that run are named, and the oldest first.
  private func look() {
    let now = Clock.monotonicNanoseconds
    let (all, lastEnd) = state.withLock { (Array($0.tests.values), $0.lastEnd) }
    let tests = all.sorted { $0.start < $1.start }
    guard tests.contains(where: { max($0.start, lastEnd) + $0.limit <= now }) else { return }
    let lines = tests.map {
      "  \($0.name), for \(($0.start.distance(to: now)) / 1_000_000_000) s\n"
    }
    let word = "A test hangs. What runs, the longest first:\n" + lines.joined()
    try? FileDescriptor(borrowing: 2).writeAll(Array(word.utf8).span)
    _exit(124)
  }
}
