import KVMLite
import Synchronization
public import Testing

/// When a test fails, tells what its guests have printed: the end of it with each issue, and all of it as
/// an attachment.
public struct ConsoleTrait: TestTrait, SuiteTrait, TestScoping {
  /// The suites in a suite have it, too.
  public var isRecursive: Bool { true }

  /// Each case of each test has its own consoles.
  public func scopeProvider(for test: Test, testCase: Test.Case?) -> Self? {
    testCase == nil ? nil : self
  }

  /// Runs a test, and looks at what its machines print.
  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let witness = ConsoleWitness()
    let failure = Failure()
    let issues: IssueHandlingTrait = .compactMapIssues { issue in
      guard issue.isFailure else { return issue }
      failure.hasHappened.store(true, ordering: .relaxed)
      var issue = issue
      issue.comments += witness.consoles.enumerated().map { Self.comment(on: $1, number: $0 + 1) }
      return issue
    }
    defer {
      if failure.hasHappened.load(ordering: .relaxed) {
        for (index, console) in witness.consoles.enumerated() {
          Attachment.record(console.bytes, named: "console\(index + 1).txt")
        }
      }
    }
    try await ConsoleWitness.$current.withValue(witness) {
      try await issues.provideScope(for: test, testCase: testCase, performing: function)
    }
  }

  private final class Failure: Sendable {
    let hasHappened = Atomic(false)
  }

  private static func comment(on console: VirtualMachine.Console, number: Int) -> Comment {
    let bytes = console.bytes
    guard !bytes.isEmpty else { return "machine \(number) has printed nothing" }
    let tail = String(decoding: bytes.suffix(1000), as: UTF8.self)
    return "machine \(number) has printed\(bytes.count > 1000 ? ", in the end" : ""):\n\(tail)"
  }
}

extension Trait where Self == ConsoleTrait {
  /// When a test fails, tells what its guests have printed, and attaches it.
  public static var showsConsoles: Self { Self() }
}
