/// How much of the host's memory this process takes.
package enum ProcessMemory {
  /// Its pages in bytes, each divided by the number of processes that have it too; nil where the kernel
  /// doesn't say. Corresponds to `Pss` of /proc/PID/smaps_rollup (proc(5)).
  package static var proportionalShare: UInt64? {
    guard let file = try? FileDescriptor(opening: "/proc/self/smaps_rollup", [.readOnly]),
      let text = try? file.read(atMost: 4096),
      let line = String(decoding: text, as: UTF8.self).split(separator: "\n")
        .first(where: { $0.hasPrefix("Pss:") }),
      let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ UInt64($0) })
    else { return nil }
    return kibibytes << 10
  }
}
