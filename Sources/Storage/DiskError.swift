import Host

/// Why a disk image can't be used, in words for its user.
package struct DiskError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Whose fault it is.
  package enum Kind: Equatable, Sendable {
    /// What was asked for makes no sense, or would destroy something.
    case usage
    /// The image is malformed, or uses what kvmlite doesn't know.
    case malformed
    /// The image can't be opened: it isn't there, may not be read, or is in use.
    case unusable
    /// The host failed.
    case host
  }

  /// Whose fault it is.
  package let kind: Kind
  /// The image.
  package let path: String
  /// What happened, and what to do.
  package let message: String

  init(_ kind: Kind, _ path: String, _ message: String) {
    self.kind = kind
    self.path = path
    self.message = message
  }

  init(opening path: String, _ errno: Errno) {
    let message =
      switch errno {
      case .noSuchFile: "no such file"
      case .isDirectory: "a directory, not a disk image"
      case .invalidArgument: "neither a file nor a block device"
      case .accessDenied, .notPermitted:
        "\(errno): its owner or root may open it; ,readonly needs only the right to read"
      default: "can't be opened: \(errno)"
      }
    self.init(.unusable, path, message)
  }

  init(_ path: String, _ error: StorageError) {
    switch error {
    case .host(let errno): self.init(.host, path, "\(errno)")
    case .removed: self.init(.host, path, "\(error)")
    case .truncated, .corrupt, .unsupported, .outOfRange: self.init(.malformed, path, "\(error)")
    case .readOnly: self.init(.usage, path, "\(error)")
    }
  }

  /// The status that a command ends with: 64, 65, 66 or 71.
  package var exitStatus: Int32 {
    switch kind {
    case .usage: 64
    case .malformed: 65
    case .unusable: 66
    case .host: 71
    }
  }

  /// What happened to what.
  package var description: String { "\(path): \(message)" }
}

extension DiskError {
  /// What was asked for makes no sense.
  package init(usage path: String, _ message: String) { self.init(.usage, path, message) }

  /// The image couldn't be read to its end.
  package init(reading path: String, _ error: StorageError) { self.init(path, error) }
}
