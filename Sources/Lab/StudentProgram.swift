import Host

/// A program in C that a student wrote, compiled in a directory that goes with this object.
///
/// It is run for what it prints, with bounds on its time and on what it writes. It is not locked in: it
/// has the rights of whoever grades it.
final class StudentProgram {
  /// How a run of it ended.
  enum End: Equatable {
    /// With this status.
    case exited(Int)
    /// By this signal.
    case killed(Signal)
    /// It was ended, for it took too long.
    case overdue
  }

  /// Why there is no program.
  struct NotCompiled: Error {
    /// What the compiler said first.
    let words: String
  }

  private let directory: TemporaryDirectory
  /// Seconds that a run may take.
  private let seconds: Int
  private static let mostBytes = 128 << 10

  /// The compilers that serve, the first that is there.
  private static let compilers = ["cc", "gcc", "clang"]
  /// What the shell ends with if there is none.
  private static let noCompiler: Int32 = 99

  /// Compiles `source`.
  init(_ source: [UInt8], seconds: Int) throws(LabError) {
    directory = try makeDirectory()
    self.seconds = seconds
    try write("vmm.c", source)
  }

  /// Compiles it with the host's compiler.
  func compile() throws(LabError) -> NotCompiled? {
    let find = Self.compilers.map { "command -v \($0)" }.joined(separator: " || ")
    let status = try shell(
      "cc=$(\(find)) || exit \(Self.noCompiler); \"$cc\" -O1 -o vmm vmm.c -lpthread 2>words", 60,
      bytes: 64 << 20)
    switch status {
    case .exited(0): return nil
    case .exited(Int(Self.noCompiler)):
      throw .unexpected(
        "no C compiler is in PATH (\(Self.compilers.joined(separator: ", "))); on Debian: "
          + "sudo apt-get install gcc libc6-dev")
    case .overdue: return NotCompiled(words: "the compiler was not done in time")
    default:
      let lines = String(decoding: read("words"), as: UTF8.self).split(separator: "\n")
      let line = lines.first { $0.contains("error") } ?? lines.first ?? "no words"
      return NotCompiled(words: String(Markup.printable(line).prefix(200)))
    }
  }

  /// Runs it on a guest that is a file with `image`, with `input` as its standard input.
  func run(
    _ image: [UInt8], input: [UInt8]
  ) throws(LabError) -> (end: End, output: [UInt8], words: String) {
    try write("guest.bin", image)
    try write("input", input)
    let end = try shell(
      "exec ./vmm guest.bin <input >output 2>words", seconds, bytes: Self.mostBytes)
    let words = String(decoding: read("words"), as: UTF8.self).split(separator: "\n").first ?? ""
    return (end, read("output"), String(Markup.printable(words).prefix(100)))
  }

  // MARK: Processes and files

  /// Runs `script` in the directory. Its processes may use `seconds` of the processor each, write
  /// files of `bytes`, and leave no image of a crash.
  private func shell(_ script: String, _ seconds: Int, bytes: Int) throws(LabError) -> End {
    let limits = "ulimit -c 0; ulimit -t \(seconds + 1); ulimit -f \(bytes / 512); "
    let nothing = try host { () throws(Errno) in
      try FileDescriptor(opening: "/dev/null", [.readWrite])
    }
    let child = try host { () throws(Errno) in
      try ChildProgram(
        "/bin/sh", ["-c", "cd \"$0\" && { \(limits)\(script); }", directory.path],
        standardError: nothing)
    }
    let status = Self.wait(for: child, seconds)
    guard let status else { return .overdue }
    return status > 128 && status < 128 + 65 ? .killed(Signal(status - 128)) : .exited(Int(status))
  }

  /// Its status when it has ended, or nil after `seconds`; nothing of it runs then.
  private static func wait(for child: ChildProgram, _ seconds: Int) -> Int32? {
    let deadline = Clock.monotonicNanoseconds &+ UInt64(seconds) &* 1_000_000_000
    let end = child.makeEndDescriptor()
    var status: Int32?
    while status == nil, Clock.monotonicNanoseconds < deadline {
      if let end {
        guard end.file.isReadable(within: 100) else { continue }
        child.stopGroup()
      } else {
        HostThread.yield()
      }
      status = child.endStatus()
    }
    if status == nil { child.stopGroup() }
    child.stop(politely: false)
    return status
  }

  private func write(_ name: String, _ bytes: [UInt8]) throws(LabError) {
    let path = directory.path + "/" + name
    try host { () throws(Errno) in
      let file = try FileDescriptor(opening: path, [.writeOnly, .create, .truncate])
      try file.writeAll(bytes.span)
    }
  }

  /// What is in a file; nothing if the program took it away.
  private func read(_ name: String) -> [UInt8] {
    let file = try? FileDescriptor(
      opening: directory.path + "/" + name, [.readOnly, .nonBlocking])
    return (try? file?.read(atMost: Self.mostBytes)) ?? []
  }
}
