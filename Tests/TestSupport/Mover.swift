import Host
import Machine
import Synchronization

/// Takes a machine out of its run from another thread, after a while.
package final class Mover: Sendable {
  private enum Result: Sendable {
    case none
    case saved(SavedMachine)
    case failed(SaveError)
  }

  private let outcome = Mutex(Result.none)
  private let thread: Mutex<HostThread?>

  /// Does so `pause` nanoseconds after `wait` has returned.
  package init(
    _ commands: CommandQueue, after pause: UInt64, _ wait: @escaping @Sendable () -> Void = {}
  ) throws {
    thread = Mutex(nil)
    let thread = try HostThread.start(name: "mover") { [self] in
      wait()
      let end = Clock.monotonicNanoseconds &+ pause
      while Clock.monotonicNanoseconds < end { HostThread.yield() }
      commands.send(
        .inspect { machine in
          do throws(SaveError) {
            let saved = try machine.save()
            self.outcome.withLock { $0 = .saved(saved) }
            machine.control.stop(.user)
          } catch { self.outcome.withLock { $0 = .failed(error) } }
        })
    }
    self.thread.withLock { $0 = thread }
  }

  /// The machine that was taken out; nil if it had ended before.
  package func result() throws -> SavedMachine? {
    thread.withLock { $0 }?.join()
    switch outcome.withLock({ $0 }) {
    case .none: return nil
    case .saved(let saved): return saved
    case .failed(let error): throw error
    }
  }
}
