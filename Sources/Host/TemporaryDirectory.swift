import Glibc

/// A directory of this process's own, which is removed with its files at the end of its life.
public final class TemporaryDirectory: Sendable {
  /// Its path.
  public let path: String

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
  }

  deinit {
    for name in Directory.names(in: path) { FileName.remove(path + "/" + name) }
    unsafe rmdir(path)
  }
}
