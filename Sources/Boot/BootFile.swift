/// A file that comes with an image: its bytes, and the name that messages call it by.
package struct BootFile: Equatable, Sendable {
  /// What the file holds.
  package var bytes: [UInt8]
  /// Its path or name.
  package var name: String
  /// What a Multiboot kernel is told of it behind its name.
  package var arguments: String

  /// A file called `name` that holds `bytes`.
  package init(_ bytes: [UInt8], name: String, arguments: String = "") {
    (self.bytes, self.name, self.arguments) = (bytes, name, arguments)
  }
}
