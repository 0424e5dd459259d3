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
  package let message: Advice

  init(_ kind: Kind, _ path: String, _ message: Advice) {
    self.kind = kind
    self.path = path
    self.message = message
  }

  init(opening path: String, _ errno: Errno) {
    let message: Advice =
      switch errno {
      case .noSuchFile: "no such file"
      case .badDescriptor: "isn't open: whoever starts kvmlite is to leave it open"
      case .isDirectory: "a directory, not a disk image"
      case .invalidArgument: "neither a file nor a block device"
      case .accessDenied, .notPermitted:
        "\(errno): its owner or root may open it; \(.readOnly) needs only the right to read"
      default: "can't be opened: \(errno)"
      }
    self.init(.unusable, path, message)
  }

  init(_ path: String, _ error: StorageError) {
    switch error {
    case .host, .removed: self.init(.host, path, error.message)
    case .truncated, .corrupt, .unsupported, .outOfRange: self.init(.malformed, path, error.message)
    case .readOnly: self.init(.usage, path, error.message)
    }
  }

  /// What happened to what.
  package var description: String { advice.description }

  /// What happened to what.
  package var advice: Advice { "\(path): \(message)" }
}

extension DiskError {
  /// What was asked for makes no sense.
  package init(usage path: String, _ message: Advice) { self.init(.usage, path, message) }

  /// The image couldn't be read to its end.
  package init(reading path: String, _ error: StorageError) { self.init(path, error) }
}
