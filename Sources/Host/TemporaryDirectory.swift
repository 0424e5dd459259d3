import Glibc
import Synchronization

/// A directory of this process's own, which is removed with its files at the end of its life.
package final class TemporaryDirectory: Sendable {
  /// Its path.
  package let path: String

  /// Those that there are, and whether there will be no more.
  private static let present = Mutex<(paths: [String], isOver: Bool)>(([], false))

  /// Makes it in $TMPDIR, or else in /tmp. Corresponds to `mkdtemp(3)`.
  package init() throws(Errno) {
    // Inside the lock, so that `removeAll()` misses none that has just been made.
    path = try Self.present.withLock { present throws(Errno) in
      guard !present.isOver else { throw .interrupted }
      let path = try Self.make()
      present.paths.append(path)
      return path
    }
  }

  private static func make() throws(Errno) -> String {
    // The C library returns NULL or a string that stays.
    let place = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
    var name = Array((place + "/kvmlite-XXXXXX").utf8CString)
    // mkdtemp writes over the six X, which are inside.
    let isMade = unsafe name.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return false }
      return unsafe mkdtemp(start) != nil
    }
    guard isMade else { throw .current }
    return unsafe name.withUnsafeBufferPointer { buffer in
      unsafe buffer.baseAddress.map { unsafe String(cString: $0) } ?? ""
    }
  }

  deinit {
    Self.remove(path)
    let path = path
    Self.present.withLock { $0.paths.removeAll { $0 == path } }
  }

  /// Removes all that there are, and lets no more be made: for a program that is about to end in the
  /// middle of things.
  package static func removeAll() {
    present.withLock { present in
      present.isOver = true
      for path in present.paths { remove(path) }
    }
  }

  /// Returns at once, but never after `removeAll()`: what fails then has that reason, and is no failure
  /// to be told.
  package static func waitForEnd() {
    while present.withLock({ $0.isOver }) { pause() }
  }

  private static func remove(_ path: String) {
    // While its files go, others may come.
    for _ in 0..<100 {
      for name in Directory.names(in: path) { FileName.remove(path + "/" + name) }
      guard unsafe rmdir(path) != 0, errno == ENOTEMPTY else { return }
    }
  }
}
