import Glibc
import Synchronization

/// What a lock guards, in the order in which one thread may take them: none while it holds one of the
/// same rank or of a later one. docs/architecture.md has what belongs to which.
public enum LockRank: UInt8, CaseIterable, Sendable {
  case memoryMap, function, registers, device, served, wanted, status, messages, pin, input, shared,
    kvm
  /// Nothing else is locked under it.
  case last
}

/// A value that one thread at a time uses, for no longer than it takes to read or change it.
///
/// A debug build traps where a thread takes one out of order, or waits while it holds one.
public struct RankedMutex<Value: ~Copyable>: ~Copyable, Sendable {
  @usableFromInline let mutex: Mutex<Value>
  #if DEBUG
    @usableFromInline let rank: LockRank
  #endif

  /// Takes over `value`.
  @inlinable
  public init(_ rank: LockRank, _ value: consuming sending Value) {
    mutex = Mutex(value)
    #if DEBUG
      self.rank = rank
    #endif
  }

  /// Runs `body` alone with the value.
  @inlinable
  public borrowing func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    #if DEBUG
      HeldLocks.take(rank)
      defer { HeldLocks.release(rank) }
    #endif
    return try mutex.withLock(body)
  }
}

/// The ranks of the locks that this thread holds; nothing in a release build.
@usableFromInline
package enum HeldLocks {
  #if DEBUG
    private static let key: pthread_key_t = {
      var key = pthread_key_t()
      unsafe pthread_key_create(&key, nil)
      return key
    }()

    // Sound: the pointer is a number, a bit for each rank, and nobody follows it.
    private static var ranks: UInt {
      get { UInt(bitPattern: unsafe pthread_getspecific(key)) }
      set { unsafe pthread_setspecific(key, UnsafeRawPointer(bitPattern: newValue)) }
    }

    @usableFromInline
    static func take(_ rank: LockRank) {
      let held = ranks
      precondition(held >> UInt(rank.rawValue) == 0, "\(rank) is locked under \(names(held))")
      ranks = held | 1 << UInt(rank.rawValue)
    }

    @usableFromInline
    static func release(_ rank: LockRank) { ranks &= ~(1 << UInt(rank.rawValue)) }

    private static func names(_ ranks: UInt) -> String {
      (0...LockRank.last.rawValue).filter { ranks >> UInt($0) & 1 != 0 }
        .compactMap(LockRank.init).map { "\($0)" }.joined(separator: ", ")
    }
  #endif

  /// Says that this thread may wait for others now: traps in a debug build if it holds a lock.
  package static func mayWait() {
    #if DEBUG
      precondition(ranks == 0, "waits with \(names(ranks)) locked")
    #endif
  }
}
