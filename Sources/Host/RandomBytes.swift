import CLinux
import Glibc

/// The host's random numbers, fit for keys.
package enum RandomBytes {
  /// Fills `bytes`. Corresponds to `getrandom(2)`.
  package static func fill(_ bytes: inout MutableSpan<UInt8>) throws(Errno) {
    var done = 0
    while done < bytes.count {
      // The kernel writes at most the buffer's length.
      let count = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
        unsafe buffer.baseAddress.map { unsafe clinux_getrandom($0 + done, buffer.count - done) }
          ?? 0
      }
      if count < 0 {
        guard Errno.current == .interrupted else { throw Errno.current }
        continue
      }
      done += count
    }
  }
}
