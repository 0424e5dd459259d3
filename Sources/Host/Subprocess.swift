import CLinux
import Glibc

/// Another program, run for what it prints.
package enum Subprocess {
  /// Runs the shell command `command` and returns what it wrote to its standard output, of which
  /// the first `limit` bytes are kept; nil if it ended with another status than 0.
  ///
  /// The command must come from constants and numbers alone. Corresponds to `popen(3)`.
  package static func output(of command: String, limit: Int = 1 << 20) -> String? {
    guard let pipe = unsafe popen(command, "re") else { return nil }
    var output: [UInt8] = []
    let reading = unsafe FileDescriptor(borrowing: fileno(pipe))
    while output.count < limit, let more = try? reading.read(atMost: 4096), !more.isEmpty {
      output += more
    }
    // The stream is open until here, and nobody uses it after.
    guard unsafe pclose(pipe) == 0 else { return nil }
    return String(decoding: output, as: UTF8.self)
  }

  /// A file without a name that holds `bytes`; programs that are run from here can open it as
  /// /dev/fd/NUMBER. Corresponds to `memfd_create(2)`.
  package static func makeTemporaryFile(_ bytes: [UInt8]) throws(Errno) -> FileDescriptor {
    let number = unsafe memfd_create("kvmlite", 0)
    guard number >= 0 else { throw Errno.current }
    let file = FileDescriptor(owning: number)
    try file.writeAll(bytes.span)
    return file
  }
}
