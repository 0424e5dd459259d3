import CLinux
import Glibc

/// Another program, run for what it prints.
package enum Subprocess {
  /// Runs the program at `path`, without a shell, and returns what it writes to its standard output; nil
  /// if it can't be run, ends with another status than 0, prints more than `limit` bytes, or isn't done
  /// in time.
  ///
  /// It has `file` as `ChildProgram.inheritedNumber`, no other open file of this process's, and an
  /// environment of its own: whoever started kvmlite has no say in what it does. It can be confined
  /// besides.
  package static func output(
    of path: String, _ arguments: [String], inheriting file: borrowing FileDescriptor,
    _ confinement: ChildProgram.Confinement? = nil, limit: Int = 1 << 16,
    within milliseconds: UInt64 = 5000
  ) -> String? {
    guard path.hasPrefix("/"), let pipe = try? Pipe(),
      let program = try? ChildProgram(
        path, arguments, inheriting: file, standardOutput: pipe.writing, environment: ["LC_ALL=C"],
        confinement)
    else { return nil }
    defer { program.stop(politely: false) }
    let reading = pipe.closeWriting()
    let deadline = Clock.monotonicNanoseconds &+ milliseconds &* 1_000_000
    func timeLeft() -> Int32 {
      let now = Clock.monotonicNanoseconds
      return now < deadline ? Int32(clamping: (deadline - now) / 1_000_000 + 1) : 0
    }
    var output: [UInt8] = []
    while true {
      guard reading.isReadable(within: timeLeft()), let more = try? reading.read(atMost: 4096)
      else {
        return nil
      }
      if more.isEmpty { break }
      output += more
      guard output.count <= limit else { return nil }
    }
    // It has closed its output, and may still be there.
    guard program.makeEndDescriptor()?.file.isReadable(within: timeLeft()) ?? true,
      program.endStatus(waits: true) == 0
    else { return nil }
    return String(decoding: output, as: UTF8.self)
  }

  /// What `body` returns in a copy of this process, which has no other threads: whatever it does to itself
  /// ends with it. Empty where it ended before. Corresponds to `fork(2)`.
  package static func result(inCopy body: () -> String) throws(Errno) -> String {
    let pipe = try Pipe()
    let child = clinux_fork()
    guard child >= 0 else { throw Errno.current }
    if child == 0 {
      try? pipe.writing.writeAll(body())
      _exit(0)
    }
    let reading = pipe.closeWriting()
    var bytes: [UInt8] = []
    while let more = try? reading.read(atMost: 4096), !more.isEmpty { bytes += more }
    // Nobody asks how it ended.
    while waitpid(child, nil, 0) < 0 && errno == EINTR {}
    return String(decoding: bytes, as: UTF8.self)
  }

  /// A file without a name that holds `bytes`; a program that inherits it can open it as /dev/fd/NUMBER.
  /// Corresponds to `memfd_create(2)`.
  package static func makeTemporaryFile(_ bytes: [UInt8]) throws(Errno) -> FileDescriptor {
    let number = unsafe memfd_create("kvmlite", UInt32(MFD_CLOEXEC))
    guard number >= 0 else { throw Errno.current }
    let file = FileDescriptor(owning: number)
    try file.writeAll(bytes.span)
    return file
  }

  /// All that such a file holds, wherever whoever filled it stands in it; `EFBIG` above 64 MiB.
  package static func contents(ofTemporaryFile file: SharedDescriptor) throws(Errno) -> [UInt8] {
    let count = try file.file.status().count
    guard count <= 64 << 20 else { throw .fileTooLarge }
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    let read = try file.file.readAll(into: &span, at: 0)
    bytes.removeLast(count - read)
    return bytes
  }
}
