import Host

/// Why a network back end can't be used, in words for its user.
package struct NetworkError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Whose fault it is.
  package enum Kind: Equatable, Sendable {
    /// What was asked for isn't there, or is in use.
    case unusable
    /// The user may not.
    case notPermitted
    /// The host failed.
    case host
  }

  /// Whose fault it is.
  package let kind: Kind
  /// What happened to what, and what to do.
  package let description: String

  /// An error in words.
  package init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}
