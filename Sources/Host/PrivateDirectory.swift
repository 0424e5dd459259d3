import Glibc

/// Directories that only this process's user may look into.
package enum PrivateDirectory {
  /// What is wrong with one that is there.
  package enum Trouble: Error {
    /// It can't be made, or looked at.
    case system(Errno)
    /// It is no directory; a link isn't followed.
    case isNone
    /// It belongs to somebody else, by that number.
    case isOwned(by: UInt32)
    /// Others have rights to it.
    case isOpen(permissions: UInt32)
  }

  /// Makes the directory at `path` with mode 0700, and those above it that are missing, or sees that it
  /// is this user's, and unless `mayBeOpen` his alone. Corresponds to `mkdir(2)` and `lstat(2)`.
  package static func make(_ path: String, mayBeOpen: Bool = false) throws(Trouble) {
    do throws(Errno) { try makeAbove(path) } catch { throw .system(error) }
    if unsafe mkdir(path, 0o700) == 0 { return }
    guard errno == EEXIST else { throw .system(.current) }
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { throw .system(.current) }
    guard status.st_mode & S_IFMT == S_IFDIR else { throw .isNone }
    guard status.st_uid == geteuid() else { throw .isOwned(by: status.st_uid) }
    guard mayBeOpen || status.st_mode & 0o077 == 0 else {
      throw .isOpen(permissions: status.st_mode & 0o777)
    }
  }

  private static func makeAbove(_ path: String) throws(Errno) {
    guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return }
    let parent = String(path[..<slash])
    guard unsafe access(parent, F_OK) != 0 else { return }
    try makeAbove(parent)
    guard unsafe mkdir(parent, 0o700) == 0 || errno == EEXIST else { throw Errno.current }
  }

  /// Removes the directory at `path` with the files in it; where there are directories in it, it stays
  /// with them. Corresponds to `unlink(2)` and `rmdir(2)`.
  package static func remove(_ path: String) throws(Errno) {
    for name in Directory.names(in: path) {
      guard unsafe unlink(path + "/" + name) == 0 || errno == ENOENT else { throw Errno.current }
    }
    guard unsafe rmdir(path) == 0 || errno == ENOENT else { throw Errno.current }
  }
}
