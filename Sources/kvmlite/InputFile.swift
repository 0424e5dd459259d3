import Host

/// Files that the command line names, read whole.
enum InputFile {
  /// The contents of `path`, which may be a pipe; no more than `limit` bytes, which are those of
  /// `hint`.
  static func contents(
    of path: String, limit: UInt64, hint: String = "what kvmlite reads"
  ) throws(Failure) -> [UInt8] {
    do throws(Errno) { return try WholeFile.contents(of: path, limit: limit) } catch {
      throw Failure(reading: path, error, limit: limit, hint: hint)
    }
  }
}

extension Failure {
  /// Why the file at `path` can't be read, which may have `limit` bytes, those of `hint`.
  init(reading path: String, _ error: Errno, limit: UInt64, hint: String) {
    switch error {
    case .fileTooLarge:
      self.init(status: 65, message: "\(path): larger than the \(limit >> 20) MiB of \(hint)")
    case .noSuchFile:
      self.init(status: 66, message: "\(path): no such file; see kvmlite --help for usage")
    case .isDirectory: self.init(status: 66, message: "\(path): a directory, not a file")
    default: self.init(status: 66, message: "\(path): can't be read: \(error)")
    }
  }
}
