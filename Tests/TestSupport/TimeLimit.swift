import Foundation
import Glibc
import Host
import Synchronization
import Testing

/// Ends the run of the tests, and names the test, when one takes longer than its time.
///
/// Swift Testing's own `.timeLimit` cancels a task. A test that spins in code of ours, or waits for
/// what never comes, doesn't notice that: only a thread beside it can tell, and end the process.
package struct TimeLimit: SuiteTrait, TestTrait, TestScoping {
  let minutes: Int

  /// The suites in a suite have its limit.
  package var isRecursive: Bool { true }

  /// Each case of each test is watched, and no suite as a whole.
  package func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? {
    testCase == nil ? nil : self
  }

  /// Runs a test, and watches it.
  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let location = test.sourceLocation
    let name = "\"\(test.displayName ?? test.name)\" (\(location.fileID):\(location.line))"
    let ticket = TestWatch.shared.begin(name, seconds: Self.seconds(minutes))
    defer { TestWatch.shared.end(ticket) }
    try await function()
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
  /// Ends the run, and names the test, when one takes longer than ten minutes: what waits for its turn
  /// behind all others has that, too.
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
    let end: UInt64
  }

  private let running = Mutex<(next: Int, tests: [Int: Running])>((0, [:]))

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
    return running.withLock {
      $0.next += 1
      $0.tests[$0.next] = Running(name: name, start: now, end: now + UInt64(seconds * 1e9))
      return $0.next
    }
  }

  func end(_ ticket: Int) { running.withLock { $0.tests[ticket] = nil } }

  /// Ends the process if a test's time is up. Which thread is in which test nobody can ask, so all that
  /// run are named, and the oldest first.
  private func look() {
    let now = Clock.monotonicNanoseconds
    let tests = running.withLock { Array($0.tests.values) }.sorted { $0.start < $1.start }
    guard tests.contains(where: { $0.end <= now }) else { return }
    let lines = tests.map {
      "  \($0.name), for \(($0.start.distance(to: now)) / 1_000_000_000) s\n"
    }
    let word = "A test hangs. What runs, the longest first:\n" + lines.joined()
    try? FileDescriptor(borrowing: 2).writeAll(Array(word.utf8).span)
    _exit(124)
  }
}
