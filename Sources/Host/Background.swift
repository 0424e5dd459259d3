import CLinux
import Glibc

/// A process that goes on in the background while the one that it came from waits for its first word.
///
/// Corresponds to `fork(2)` and `setsid(2)`.
package final class Background: Sendable {
  private let pipe: SharedDescriptor

  /// Splits the process, which has no other threads, in two. The new one returns, with a session of its
  /// own, neither input nor output, and the standard error that it had. The old one calls `ready` when
  /// that has said that it is, and ends with 0, or 71 where `ready` returns false; or, if it ends instead,
  /// with its status.
  package init(ready: () -> Bool) throws(Errno) {
    let pipe = try Pipe()
    let child = clinux_fork()
    guard child >= 0 else { throw Errno.current }
    if child > 0 {
      let words = pipe.closeWriting()
      _exit(Self.wait(for: child, words, ready))
    }
    setsid()
    let nothing = try FileDescriptor(opening: "/dev/null", [.readWrite])
    dup2(nothing.number, 0)
    dup2(nothing.number, 1)
    self.pipe = pipe.shared().writing
  }

  /// What a copy of this process, which has no other threads, ends with; `body` is what it does.
  package static func status(inCopy body: () -> Never) throws(Errno) -> Int32 {
    let child = clinux_fork()
    guard child >= 0 else { throw Errno.current }
    if child == 0 { body() }
    return status(of: child)
  }

  private static func wait(
    for child: Int32, _ words: borrowing FileDescriptor, _ ready: () -> Bool
  ) -> Int32 {
    while true {
      do throws(Errno) {
        guard try words.read(atMost: 1).isEmpty else { return ready() ? 0 : 71 }
      } catch .interrupted { continue } catch {}
      break
    }
    let status = status(of: child)
    // It has run, and its word was lost.
    return status == 0 && !ready() ? 71 : status
  }

  private static func status(of child: Int32) -> Int32 {
    var status: Int32 = 0
    while unsafe waitpid(child, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
  }

  /// Says that it is ready. Its standard error is `words` from now on.
  package func isReady(words: borrowing FileDescriptor) {
    dup2(words.number, 2)
    try? pipe.file.writeAll([1].span)
  }
}
