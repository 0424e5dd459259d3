import Host

/// Files that the command line names, read whole.
enum InputFile {
  private static let chunk = 1 << 20

  /// The contents of `path`, which may be a pipe; no more than `limit` bytes, which are those of
  /// `hint`.
  static func contents(
    of path: String, limit: UInt64, hint: String = "what kvmlite reads"
  ) throws(Failure) -> [UInt8] {
    do throws(Errno) {
      let file = try FileDescriptor(opening: path, [.readOnly])
      let (kind, size) = try file.status()
      guard kind != .directory else { throw .isDirectory }
      if kind == .regular && UInt64(size) > limit { throw .fileTooLarge }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(kind == .regular ? size : 0)
      while true {
        // A small file gets a small buffer: touching a page takes longer than reading it. The one
        // byte more is for the end, which an empty read tells.
        let left = kind == .regular ? max(0, size - bytes.count) + 1 : chunk
        let more = try file.read(atMost: min(left, chunk))
        if more.isEmpty { return bytes }
        bytes += more
        if UInt64(bytes.count) > limit { throw .fileTooLarge }
      }
    } catch .fileTooLarge {
      throw Failure(
        status: 65, message: "\(path): larger than the \(limit >> 20) MiB of \(hint)")
    } catch .noSuchFile {
      throw Failure(status: 66, message: "\(path): no such file; see kvmlite --help for usage")
    } catch .isDirectory {
      throw Failure(status: 66, message: "\(path): a directory, not a file")
    } catch {
      throw Failure(status: 66, message: "\(path): can't be read: \(error)")
    }
  }
}
