import Synchronization

/// Remembers that a flush failed. What it should have made safe may be lost, and a later flush that
/// works says nothing of it, so all later ones fail too.
final class FlushFailure: Sendable {
  private let failure = Mutex<StorageError?>(nil)

  /// Throws what an earlier flush failed with.
  func check() throws(StorageError) {
    if let error = failure.withLock({ $0 }) { throw error }
  }

  /// Remembers `error` if it is the first, and returns the first.
  func keep(_ error: StorageError) -> StorageError {
    failure.withLock { kept in
      if kept == nil { kept = error }
      return kept ?? error
    }
  }
}
