import CLinux
import Glibc

/// Names of files.
public enum FileName {
  /// Gives the file called `old` the name `new`; unless `replaces`, only where nothing has it, else
  /// `EEXIST`. The change is safe from a power cut when this returns. Corresponds to `rename(2)` and
  /// `link(2)`.
  public static func move(_ old: String, to new: String, replaces: Bool) throws(Errno) {
    if replaces {
      guard unsafe rename(old, new) == 0 else { throw Errno.current }
    } else if unsafe link(old, new) == 0 {
      unsafe unlink(old)
    } else {
      guard errno != EEXIST, unsafe access(new, F_OK) != 0 else { throw Errno.exists }
      // A file system without links.
      guard unsafe rename(old, new) == 0 else { throw Errno.current }
    }
    let directory = new.lastIndex(of: "/").map { String(new[...$0]) } ?? "."
    if let opened = try? FileDescriptor(opening: directory, [.readOnly]) { fsync(opened.number) }
  }

  /// Removes a file's name. Corresponds to `unlink(2)`.
  public static func remove(_ path: String) { unsafe unlink(path) }
}
