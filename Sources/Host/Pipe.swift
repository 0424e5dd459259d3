import CLinux
import Glibc

/// A pipe: what is written at one end is read at the other. Corresponds to `pipe2(2)`.
package struct Pipe: ~Copyable {
  /// The end to read from.
  package let reading: FileDescriptor
  /// The end to write to.
  package let writing: FileDescriptor

  /// Makes one that other programs don't inherit.
  package init() throws(Errno) {
    var ends: (Int32, Int32) = (-1, -1)
    // The kernel writes two numbers, which the tuple has room for, one after the other.
    let result = unsafe withUnsafeMutableBytes(of: &ends) { bytes in
      unsafe clinux_pipe(bytes.baseAddress?.assumingMemoryBound(to: Int32.self))
    }
    guard result == 0 else { throw Errno.current }
    reading = FileDescriptor(owning: ends.0)
    writing = FileDescriptor(owning: ends.1)
  }

  /// Both ends, each for several parties.
  package consuming func shared() -> (reading: SharedDescriptor, writing: SharedDescriptor) {
    (SharedDescriptor(reading), SharedDescriptor(writing))
  }

  /// Keeps the end to read from and closes the other, which another program has by now.
  package consuming func closeWriting() -> FileDescriptor { reading }
}
