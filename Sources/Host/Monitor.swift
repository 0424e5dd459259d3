import Glibc

/// A lock with a condition: threads wait in it for what other threads do.
///
/// For threads that stop for long; nothing on the exit path uses it. Corresponds to
/// `pthread_mutex_t` and `pthread_cond_t`.
@safe public final class Monitor: @unchecked Sendable {
  // Sound as Sendable: both objects are made to be shared, and their addresses never change.
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  /// Makes a free lock.
  public init() {
    unsafe mutex.initialize(to: pthread_mutex_t())
    unsafe pthread_mutex_init(mutex, nil)
    unsafe condition.initialize(to: pthread_cond_t())
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    unsafe pthread_cond_init(condition, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_cond_destroy(condition)
    unsafe pthread_mutex_destroy(mutex)
    unsafe condition.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` alone.
  public func locked<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Inside `locked`: lets others in until somebody calls `wakeAll()`; may return without cause.
  public func wait() {
    HeldLocks.mayWait()
    unsafe pthread_cond_wait(condition, mutex)
  }

  /// The same, but no longer than until `deadline` (`Clock.monotonicNanoseconds`).
  ///
  /// Returns false when the time is up.
  public func wait(until deadline: UInt64) -> Bool {
    HeldLocks.mayWait()
    var time = timespec(
      tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    return unsafe pthread_cond_timedwait(condition, mutex, &time) == 0
  }

  /// Wakes all who wait.
  public func wakeAll() {
    unsafe pthread_cond_broadcast(condition)
  }
}
