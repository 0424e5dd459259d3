import CLinux
import Glibc

/// Machine code run in this host's user mode, in a process of its own, to see what becomes of it.
package enum UserMode {
  /// How it ended.
  package enum End: Equatable, Sendable {
    /// It returned.
    case returned
    /// An exception ended it, which the kernel turned into a signal: its vector and error code.
    case exception(vector: UInt8, error: UInt32)
    /// The process ended in another way: a signal by number, or 0.
    case killed(Int32)
  }

  /// How many 64-bit words the code's scratch memory has.
  package static let scratchCount = 64

  /// Calls the code that starts `entry` bytes into `image`, which is below 4 GiB, with RDI pointing to
  /// memory that holds `scratch`. Returns how it ended and that memory.
  ///
  /// Whatever the code does to its process, this one never notices; five seconds end it. Corresponds
  /// to `fork(2)`, `waitpid(2)`.
  package static func run(
    _ image: [UInt8], entry: Int, scratch: [UInt64]
  ) throws(Errno) -> (end: End, scratch: [UInt64]) {
    guard entry >= 0, entry < image.count, scratch.count <= scratchCount else {
      throw .invalidArgument
    }
    let words = scratch + [UInt64](repeating: 0, count: scratchCount - scratch.count)
    var result = clinux_probe()
    // The shim copies the image, and 64 words each way; the code itself runs in a child process.
    let status = unsafe image.withUnsafeBufferPointer { bytes in
      unsafe words.withUnsafeBufferPointer { words in
        unsafe clinux_probe_run(
          bytes.baseAddress, UInt(bytes.count), UInt64(entry), words.baseAddress, &result)
      }
    }
    guard status == 0 else { throw .current }
    // A C array of 64 words, all of which were written.
    let left = unsafe withUnsafeBytes(of: result.scratch) {
      unsafe Array($0.bindMemory(to: UInt64.self))
    }
    let end: End =
      switch result.ended {
      case 1: .returned
      case 2:
        .exception(
          vector: UInt8(truncatingIfNeeded: result.vector),
          error: UInt32(truncatingIfNeeded: result.error))
      default: .killed(result.status & 0x7F)
      }
    return (end, left)
  }
}
