import Host

/// Why a network back end can't be used, in words for its user.
public struct NetworkError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Whose fault it is.
  public enum Kind: Equatable, Sendable {
    /// What was asked for isn't there, or is in use.
    case unusable
    /// The user may not.
    case notPermitted
    /// The host failed.
    case host
  }

  /// Whose fault it is.
  public let kind: Kind
  /// What happened to what, and what to do.
  public let description: String

  /// An error in words.
  public init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}
