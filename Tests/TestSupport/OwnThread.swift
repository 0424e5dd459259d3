import Dispatch
import Foundation
import Synchronization

/// Where tests run: as many at once as there are processors, each on a thread of its own.
///
/// Swift's own threads are as many as processors, and a test that waits in a system call holds one. With
/// all of them held, a task that awaits something would go on when all other tests have had their turn, and
/// what it has running, a guest that spins, would take a processor until then.
enum OwnThread {
  /// Runs `test` there, with the tasks that it awaits, when it is its turn.
  static func run(_ test: @Sendable () async throws -> Void) async throws {
    await turns.take()
    defer { turns.give() }
    try await withTaskExecutorPreference(Executor()) { try await test() }
  }

  private static let turns = Turns(ProcessInfo.processInfo.activeProcessorCount)

  fileprivate final class Executor: TaskExecutor {
    // A serial queue has a thread whenever it has something to do.
    private let queue = DispatchQueue(label: "test")

    func enqueue(_ job: consuming ExecutorJob) {
      let job = UnownedJob(job)
      queue.async { unsafe job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
  }

  private final class Turns: Sendable {
    private let state: Mutex<(free: Int, waiting: [CheckedContinuation<Void, Never>])>

    init(_ count: Int) { state = Mutex((count, [])) }

    func take() async {
      await withCheckedContinuation { continuation in
        let isFree = state.withLock { state in
          guard state.free > 0 else {
            state.waiting.append(continuation)
            return false
          }
          state.free -= 1
          return true
        }
        if isFree { continuation.resume() }
      }
    }

    func give() {
      let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
        guard state.waiting.isEmpty else { return state.waiting.removeFirst() }
        state.free += 1
        return nil
      }
      next?.resume()
    }
  }
}

/// A task that nobody awaits yet, on a thread of its own: such tasks don't have their maker's.
package func ownTask<Value: Sendable>(
  _ body: @escaping @Sendable () async throws -> Value
) -> Task<Value, any Error> {
  Task(executorPreference: OwnThread.Executor()) { try await body() }
}
