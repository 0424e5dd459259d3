import Glibc

/// What is done when a file under this process's memory is cut, or its disk fails: pages of it that come
/// later aren't there, and whoever touches one gets `SIGBUS` (mmap(2)).
package enum LostMemory {
  // Set once, before there are other threads.
  private nonisolated(unsafe) static var isTaken = false

  private static let words: StaticString =
    "kvmlite: the file under the guest's memory was cut, or can't be read: the machine ends\n"

  /// Whether that ends the process in order.
  static var ends: Bool { unsafe isTaken }

  /// Ends the process then, with words and status 71, instead of a crash.
  package static func end() {
    unsafe isTaken = true
    var action = sigaction()
    // What is called there may be called from a signal handler (signal-safety(7)).
    unsafe action.__sigaction_handler.sa_handler = { _ in
      Terminal.restoreNow()
      _ = unsafe write(2, LostMemory.words.utf8Start, LostMemory.words.utf8CodeUnitCount)
      _exit(71)
    }
    unsafe sigaction(SIGBUS, &action, nil)
  }
}
