import Host
import Synchronization

/// A directory that goes with this object, in which programs are run for what they write there.
package final class Workshop {
  /// How a run ended.
  enum End: Equatable {
    /// With this status.
    case exited(Int)
    /// By this signal.
    case killed(Signal)
    /// It was ended, for it took too long.
    case overdue
  }

  private let directory: TemporaryDirectory
  /// What runs now, by its process's number.
  private static let running = Mutex<[Int32: ChildProgram]>([:])

  /// Ends all that runs: for a program that is about to end in the middle of things.
  package static func endAll() {
    running.withLock { for child in $0.values { child.stopGroup() } }
  }

  init() throws(LabError) { directory = try makeDirectory() }

  /// Runs `script` there by the shell. Its processes may use `seconds` of the processor each, write files
  /// of `bytes`, and leave no image of a crash.
  func run(_ script: String, seconds: Int, bytes: Int) throws(LabError) -> End {
    let limits = "ulimit -c 0; ulimit -t \(seconds + 1); ulimit -f \(bytes / 512); "
    let nothing = try host { () throws(Errno) in
      try FileDescriptor(opening: "/dev/null", [.readWrite])
    }
    let child = try host { () throws(Errno) in
      try ChildProgram(
        "/bin/sh", ["-c", "cd \"$0\" && { \(limits)\(script); }", directory.path],
        standardError: nothing)
    }
    Self.running.withLock { $0[child.identifier] = child }
    defer { Self.running.withLock { _ = $0.removeValue(forKey: child.identifier) } }
    guard let status = Self.wait(for: child, seconds) else { return .overdue }
    return status > 128 && status <= 128 + 64 ? .killed(Signal(status - 128)) : .exited(Int(status))
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

  /// Makes `bytes` the content of a file.
  func write(_ name: String, _ bytes: [UInt8]) throws(LabError) {
    let path = directory.path + "/" + name
    try host { () throws(Errno) in
      let file = try FileDescriptor(opening: path, [.writeOnly, .create, .truncate])
      try file.writeAll(bytes.span)
    }
  }

  /// At most `limit` bytes of a file; nothing if a program took it away.
  func read(_ name: String, limit: Int) -> [UInt8] {
    let file = try? FileDescriptor(opening: directory.path + "/" + name, [.readOnly, .nonBlocking])
    return (try? file?.read(atMost: limit)) ?? []
  }

  /// The first line of a file of words that `isWanted`, or else its first, without what could do anything
  /// to a terminal.
  func line(_ name: String, where isWanted: (Substring) -> Bool = { _ in true }) -> String {
    let lines = String(decoding: read(name, limit: 1 << 16), as: UTF8.self).split(separator: "\n")
    return String(Markup.printable(lines.first(where: isWanted) ?? lines.first ?? "").prefix(200))
  }
}
