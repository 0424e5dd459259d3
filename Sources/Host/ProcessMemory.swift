/// How much of the host's memory this process takes.
package enum ProcessMemory {
  private static let file: SharedDescriptor? = try? SharedDescriptor(
    FileDescriptor(opening: "/proc/self/smaps_rollup", [.readOnly]))

  /// Opens what tells it, for a process that can't do so later.
  package static func keepOpen() { _ = file }

  /// Its pages in bytes, each divided by the number of processes that have it too; nil where the kernel
  /// doesn't say. Corresponds to `Pss` of /proc/PID/smaps_rollup (proc(5)).
  package static var proportionalShare: UInt64? {
    var text = [UInt8](repeating: 0, count: 4096)
    var span = text.mutableSpan
    // From the beginning, each time.
    guard let file, let count = try? file.file.readAll(into: &span, at: 0),
      let line = String(decoding: text.prefix(count), as: UTF8.self).split(separator: "\n")
        .first(where: { $0.hasPrefix("Pss:") }),
      let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ UInt64($0) })
    else { return nil }
    return kibibytes << 10
  }
}
