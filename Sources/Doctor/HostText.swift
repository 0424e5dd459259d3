import Host

/// The small text files in which Linux tells of the host.
package enum HostText {
  /// The first `limit` bytes of the file at `path`; empty if it can't be read.
  package static func contents(of path: String, limit: Int = 1 << 16) -> String {
    guard let file = try? FileDescriptor(opening: path, [.readOnly]) else { return "" }
    var bytes: [UInt8] = []
    while bytes.count < limit, let more = try? file.read(atMost: 4096), !more.isEmpty {
      bytes += more
    }
    return String(decoding: bytes.prefix(limit), as: UTF8.self)
  }

  /// The name that `number` has in `table`, which is in the format of passwd(5) and group(5).
  static func name(of number: UInt32, in table: String) -> String? {
    for line in table.split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count > 2, fields[2] == "\(number)" { return String(fields[0]) }
    }
    return nil
  }

  /// The members that `table`, in the format of group(5), lists for the group `number`.
  static func members(ofGroup number: UInt32, in table: String) -> [String] {
    for line in table.split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      if fields.count > 3, fields[2] == "\(number)" {
        return fields[3].split(separator: ",").map(String.init)
      }
    }
    return []
  }
}
