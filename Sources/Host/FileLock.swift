import CLinux
import Glibc

/// Locks on single bytes of a file, which belong to the open file and go when it is closed. They keep
/// nobody from reading or writing: they are words between programs that look at them.
extension FileDescriptor {
  /// Locks the byte at `offset`, shared with any number of others. Corresponds to `F_OFD_SETLK` of
  /// `fcntl(2)`.
  package func lockShared(_ offset: Int64) throws(Errno) {
    guard clinux_lock(number, Int32(F_RDLCK), offset, 1) == 0 else { throw Errno.current }
  }

  /// Locks the byte at `offset` for itself alone. Throws `EAGAIN` where another has it. Corresponds to
  /// `F_OFD_SETLK` of `fcntl(2)`.
  package func lockAlone(_ offset: Int64) throws(Errno) {
    guard clinux_lock(number, Int32(F_WRLCK), offset, 1) == 0 else {
      // POSIX leaves open which of the two it is.
      throw Errno.current == .accessDenied ? .tryAgain : .current
    }
  }

  /// Lets all locks go, which closing does too; but not while a process that was just forked has the
  /// open file as well, up to its `execve(2)`.
  package func unlockAll() { _ = clinux_lock(number, Int32(F_UNLCK), 0, 0) }

  /// Whether somebody else, this process through another open file included, has locked the byte at
  /// `offset`. Corresponds to `F_OFD_GETLK`.
  package func isLockedByAnother(_ offset: Int64) throws(Errno) -> Bool {
    let answer = clinux_is_locked(number, offset, 1)
    guard answer >= 0 else { throw Errno.current }
    return answer == 1
  }
}

/// A process that has a lock on a file.
package struct LockHolder: Equatable, Sendable, CustomStringConvertible {
  /// Its process ID.
  package let process: Int32
  /// Its name, such as `qemu-img`.
  package let name: String

  /// `qemu-img (process 4711)`.
  package var description: String { "\(name) (process \(process))" }

  /// The processes that have any lock of an open file on the file, as far as this one may look.
  ///
  /// The kernel says of such locks neither in `fcntl(2)` nor in /proc/locks who has them; but it
  /// lists those of each open file in /proc/PID/fdinfo.
  package static func all(of file: FileIdentity) -> [LockHolder] {
    var holders: [LockHolder] = []
    for entry in Directory.names(in: "/proc") {
      guard let process = Int32(entry) else { continue }
      let holds = Directory.names(in: "/proc/\(process)/fd").contains { number in
        guard (try? FileFacts(of: "/proc/\(process)/fd/\(number)"))?.identity == file else {
          return false
        }
        return text("/proc/\(process)/fdinfo/\(number)").contains("OFDLCK")
      }
      guard holds else { continue }
      let name = text("/proc/\(process)/comm").prefix { $0 != "\n" }
      holders.append(LockHolder(process: process, name: name.isEmpty ? "?" : String(name)))
    }
    return holders
  }

  /// This process.
  package static var currentProcess: Int32 { getpid() }

  private static func text(_ path: String) -> String {
    guard let file = try? FileDescriptor(opening: path, [.readOnly]),
      let bytes = try? file.read(atMost: 16384)
    else { return "" }
    return String(decoding: bytes, as: UTF8.self)
  }
}
