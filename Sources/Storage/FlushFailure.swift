import Synchronization

/// Remembers that a flush failed. What it should have made safe may be lost, and a later flush that
/// works says nothing of it, so all later ones fail too.
///
/// Flushes are made one at a time: Linux tells of a failed write once, and of two calls at once the one
/// that hears nothing must not say that all is well.
final class FlushFailure: Sendable {
  private let failure = Mutex<StorageError?>(nil)

  /// Makes a flush by `body`, or throws what an earlier one failed with.
  func flushing(_ body: () throws(StorageError) -> Void) throws(StorageError) {
    try failure.withLock { failure throws(StorageError) in
      if let failure { throw failure }
      do throws(StorageError) { try body() } catch {
        // A removed file has lost nothing yet, and may get a name again.
        if error != .removed { failure = error }
        throw error
      }
    }
  }
}
