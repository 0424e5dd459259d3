import Dispatch
import Testing

/// Runs each case of asynchronous tests on a thread of its own.
///
/// Swift's own threads are as many as processors, and tests that wait in system calls hold them: a test that
/// awaits something would go on when all others have had their turn, and what it has running, a guest that
/// spins, would take a processor until then.
package struct OwnThread: EachCase {
  /// Runs a test there, with the tasks that it awaits.
  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await withTaskExecutorPreference(Executor()) { try await function() }
  }

  fileprivate final class Executor: TaskExecutor {
    // A serial queue has a thread whenever it has something to do.
    private let queue = DispatchQueue(label: "test")

    func enqueue(_ job: consuming ExecutorJob) {
      let job = UnownedJob(job)
      queue.async { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
  }
}

extension Trait where Self == OwnThread {
  /// Runs each case of asynchronous tests on a thread of its own.
  package static var ownThread: Self { Self() }
}

/// A task that nobody awaits yet, on a thread of its own: such tasks don't have their maker's.
package func ownTask<Value: Sendable>(
  _ body: @escaping @Sendable () async throws -> Value
) -> Task<Value, any Error> {
  Task(executorPreference: OwnThread.Executor()) { try await body() }
}
