import CLinux
import Glibc

/// A hold on an open file that the kernel's own worker lets go of, some time after this process has:
/// for files whose last close takes long, as that of a virtual machine with interrupt controllers does.
///
/// The file waits in the queue of a socket that waits there too. Once the pair is closed nobody can
/// reach them, and the kernel collects such a cycle by itself (Linux 6.9 and later: on a work queue;
/// before that it makes no difference). To be made after everything else that keeps the file's object,
/// for at the end of a process files are closed by rising number. Corresponds to `unix(7)`, `SCM_RIGHTS`.
package struct LateClose: ~Copyable, Sendable {
  private let queue: FileDescriptor
  private let sender: FileDescriptor

  /// Holds `file`; nil where the host refuses, which only costs time.
  package static func make(_ file: borrowing FileDescriptor) -> LateClose? {
    var ends: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    // The kernel writes two numbers.
    guard unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0 else { return nil }
    let (files, byte) = ([file.number, ends[0]], [0 as UInt8])
    // The kernel reads one byte and two numbers.
    _ = unsafe files.withUnsafeBufferPointer { files in
      unsafe byte.withUnsafeBufferPointer { byte in
        unsafe clinux_send(ends[1], byte.baseAddress, 1, files.baseAddress, 2)
      }
    }
    return LateClose(
      queue: FileDescriptor(owning: ends[0]), sender: FileDescriptor(owning: ends[1]))
  }

  private init(queue: consuming FileDescriptor, sender: consuming FileDescriptor) {
    self.queue = queue
    self.sender = sender
  }
}
