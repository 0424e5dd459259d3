/// A folder of files that is made beside the one whose place it takes: at any moment there is one of both,
/// whole.
package struct NewFolder: Sendable {
  /// Where it will be.
  package let path: String
  /// What files it has, and no others.
  private let names: [String]
  private var new: String { "\(path).saving-\(LockHolder.currentProcess)" }

  /// For `path`, with files called `names`. Touches nothing yet.
  package init(_ path: String, _ names: [String]) {
    var path = path
    while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
    // A link goes on leading there.
    self.path = FileName.withoutLinks(path) ?? path
    self.names = names
  }

  /// Whether nothing of a user's is lost where it takes its place: there is nothing, or another of its kind.
  package var mayReplace: Bool {
    guard FileDescriptor.exists(path) else { return true }
    guard Directory.names(in: path).allSatisfy({ names.contains($0) }) else { return false }
    return (try? FileFacts(of: path).kind) == .directory
  }

  /// Makes it, without files. Corresponds to `mkdir(2)`.
  package func make() throws(Errno) {
    guard mayReplace else { throw .exists }
    try FileName.makeDirectory(new)
  }

  /// Makes one of its files, to be written.
  package func makeFile(_ name: String) throws(Errno) -> SharedDescriptor {
    SharedDescriptor(
      try FileDescriptor(
        opening: "\(new)/\(name)", [.readWrite, .create, .exclusive], permissions: 0o400))
  }

  /// Puts it in its place; what was there is removed. Corresponds to `renameat2(2)`.
  package func keep() throws(Errno) {
    let isNew = !FileDescriptor.exists(path)
    try FileName.exchange(new, path)
    if !isNew { try? PrivateDirectory.remove(new) }
  }

  /// Removes what was made.
  package func remove() { try? PrivateDirectory.remove(new) }

  // MARK: As an errand

  /// What `Errand.Kind.renewFolder` does next, by its number: a file's index, or one of these.
  package enum Step {
    /// The folder is made.
    package static let make: UInt64 = 1 << 32
    /// It takes its place.
    package static let keep = make + 1
    /// It is removed.
    package static let remove = make + 2
  }

  func perform(_ step: UInt64) throws(Errno) -> SharedDescriptor? {
    switch step {
    case Step.make: try make()
    case Step.keep: try keep()
    case Step.remove: remove()
    default:
      guard step < names.count else { throw .invalidArgument }
      return try makeFile(names[Int(step)])
    }
    return nil
  }

  /// The words of its errand, and what they say.
  var words: [String] { [path] + names }
  init?(words: [String]) {
    guard let path = words.first else { return nil }
    (self.path, names) = (path, Array(words.dropFirst()))
  }
}
