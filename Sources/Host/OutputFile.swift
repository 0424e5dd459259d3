import CLinux
import Glibc
import Synchronization

/// A file that appears under its name only when it is whole.
///
/// It is written beside its place under another name, and removed unless it is committed. Where
/// something that isn't a regular file has the name already, such as a pipe or a device, that is
/// written to directly.
package final class OutputFile: Sendable {
  /// The name the file gets.
  package let path: String
  /// The same without symbolic links: what they lead to is replaced, and they stay.
  private let place: String
  private let naming: Errand?
  private let removal: Errand?
  private let file: FileDescriptor
  private let isSettled = Atomic<Bool>(false)

  /// Opens the place for writing.
  package init(_ path: String) throws(Errno) {
    guard !path.isEmpty else { throw .noSuchFile }
    self.path = path
    place = FileName.withoutLinks(path) ?? path
    if let present = try? FileDescriptor(opening: path, [.readOnly, .nonBlocking]) {
      let kind = try present.status().kind
      guard kind != .directory else { throw Errno.isDirectory }
      if kind == .other {
        naming = nil
        removal = nil
        file = try FileDescriptor(opening: path, [.writeOnly])
        return
      }
    }
    var beside = place
    file = try Self.makeBeside(&beside)
    naming = Errand(.move(beside, to: place))
    removal = Errand(.remove(beside, nil))
  }

  /// A new file beside `place`, which becomes its name: never one that somebody has put there, nor what
  /// a link leads to (`O_EXCL`).
  private static func makeBeside(_ place: inout String) throws(Errno) -> FileDescriptor {
    let stem = place + ".partial-\(getpid())"
    for number in 0..<100 {
      place = stem + (number == 0 ? "" : "-\(number)")
      do { return try FileDescriptor(opening: place, [.writeOnly, .create, .exclusive]) } catch {
        guard error == .exists else { throw error }
      }
    }
    throw .exists
  }

  deinit { abandon() }

  /// Appends `bytes`.
  package func write(_ bytes: [UInt8]) throws(Errno) { try file.writeAll(bytes.span) }

  /// Gives the file its name. Corresponds to `rename(2)`.
  package func commit() throws(Errno) {
    guard let naming else { return }
    try naming.perform()
    isSettled.store(true, ordering: .relaxed)
  }

  /// Removes what was written so far.
  package func abandon() {
    guard let removal, !isSettled.exchange(true, ordering: .relaxed) else { return }
    _ = try? removal.perform()
  }
}
