import CLinux
import Glibc

/// A thread of the host, for work that must own one: VCPUs live here, never in Swift concurrency.
package final class HostThread: Sendable {
  private let handle: pthread_t

  private final class Body {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }

  /// Starts `body` on a new thread called `name` (15 bytes of it show in `ps`), which may do what `filters`
  /// allow for its role, and no more than the calling thread.
  ///
  /// Corresponds to `pthread_create(3)`.
  init(
    direct name: String, _ role: ThreadRole?, _ filters: ThreadFilters?,
    _ body: @escaping @Sendable () -> Void
  ) throws(Errno) {
    // The new thread takes over the one reference made here, and only if it was started.
    let named: @Sendable () -> Void = {
      // Only a label: a thread without one works as well.
      _ = unsafe clinux_set_thread_name(name)
      if let role {
        filters?.hold(role)
        Takeover.act(as: role)
      }
      body()
    }
    let context = unsafe Unmanaged.passRetained(Body(named))
    var handle = pthread_t()
    let error = unsafe pthread_create(
      &handle, nil,
      { context in
        if let context = unsafe context {
          unsafe Unmanaged<Body>.fromOpaque(context).takeRetainedValue().run()
        }
        return nil
      }, context.toOpaque())
    guard error == 0 else {
      unsafe context.release()
      throw Errno(error)
    }
    self.handle = handle
  }

  /// Waits until the thread's body has returned; to be called exactly once.
  ///
  /// Corresponds to `pthread_join(3)`.
  package func join() {
    pthread_join(handle, nil)
  }

  /// Leaves the thread to itself: its end frees what it held. Instead of `join()`.
  ///
  /// Corresponds to `pthread_detach(3)`.
  package func detach() {
    pthread_detach(handle)
  }

  /// Lets other threads go first. Corresponds to `sched_yield(2)`.
  package static func yield() { sched_yield() }

  /// Sends `signal` to this thread, which has not been joined. Corresponds to `pthread_kill(3)`.
  package func send(_ signal: Signal) {
    pthread_kill(handle, signal.number)
  }
}
