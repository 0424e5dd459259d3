/// Files that are read whole.
package enum WholeFile {
  private static let chunk = 1 << 20

  /// The contents of the file at `path`, which may be a pipe. Throws `EFBIG` where it has more than
  /// `limit` bytes, and `EISDIR` for a directory.
  package static func contents(of path: String, limit: UInt64) throws(Errno) -> [UInt8] {
    try contents(of: FileDescriptor(opening: path, [.readOnly]), limit: limit)
  }

  /// The same of an open file, from where it stands.
  package static func contents(
    of file: borrowing FileDescriptor, limit: UInt64
  ) throws(Errno) -> [UInt8] {
    let (kind, size) = try file.status()
    guard kind != .directory else { throw .isDirectory }
    if kind == .regular && UInt64(size) > limit { throw .fileTooLarge }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(kind == .regular ? size : 0)
    while true {
      // A small file gets a small buffer: touching a page takes longer than reading it. The one byte
      // more is for the end, which an empty read tells.
      let left = kind == .regular ? max(0, size - bytes.count) + 1 : chunk
      let more = try file.read(atMost: min(left, chunk))
      if more.isEmpty { return bytes }
      bytes += more
      if UInt64(bytes.count) > limit { throw .fileTooLarge }
    }
  }
}
