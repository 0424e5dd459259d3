/// A file that comes with an image: its bytes, and the name that messages call it by.
public struct BootFile: Equatable, Sendable {
  /// What the file holds.
  public var bytes: [UInt8]
  /// Its path or name.
  public var name: String

  /// A file called `name` that holds `bytes`.
  public init(_ bytes: [UInt8], name: String) {
    self.bytes = bytes
    self.name = name
  }
}
