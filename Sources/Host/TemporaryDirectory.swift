import Glibc
import Synchronization

/// A directory of this process's own, which is removed with its files at the end of its life.
public final class TemporaryDirectory: Sendable {
  /// Its path.
  public let path: String

  private static let present = Mutex<[String]>([])

  /// Makes it in $TMPDIR, or else in /tmp. Corresponds to `mkdtemp(3)`.
  public init() throws(Errno) {
    // The C library returns NULL or a string that stays.
    let place = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
    var name = Array((place + "/kvmlite-XXXXXX").utf8CString)
    // mkdtemp writes over the six X, which are inside.
    let isMade = unsafe name.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return false }
      return unsafe mkdtemp(start) != nil
    }
    guard isMade else { throw .current }
    path = unsafe name.withUnsafeBufferPointer { buffer in
      unsafe buffer.baseAddress.map { unsafe String(cString: $0) } ?? ""
    }
    let path = path
    Self.present.withLock { $0.append(path) }
  }

  deinit {
    let path = path
    Self.present.withLock { $0.removeAll { $0 == path } }
    Self.remove(path)
  }

  /// Removes all that there are: for a program that is about to end in the middle of things.
  public static func removeAll() {
    for path in present.withLock({ $0 }) { remove(path) }
  }

  private static func remove(_ path: String) {
    // While its files go, others may come.
    for _ in 0..<100 {
      for name in Directory.names(in: path) { FileName.remove(path + "/" + name) }
      guard unsafe rmdir(path) != 0, errno == ENOTEMPTY else { return }
    }
  }
}
