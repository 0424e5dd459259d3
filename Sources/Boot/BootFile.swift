/// A file that comes with an image: its bytes, and the name that messages call it by.
package struct BootFile: Equatable, Sendable {
  /// What the file holds.
  package var bytes: [UInt8]
  /// Its path or name.
  package var name: String

  /// A file called `name` that holds `bytes`.
  package init(_ bytes: [UInt8], name: String) {
    self.bytes = bytes
    self.name = name
  }
}
