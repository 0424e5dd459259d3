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

  /// The name of the file at `path` without symbolic links; nil if there is no such file. Corresponds
  /// to `realpath(3)`.
  public static func withoutLinks(_ path: String) -> String? {
    // The C library allocates the string, which is copied and freed at once.
    guard let name = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(name) }
    return unsafe String(cString: name)
  }

  /// What the symbolic link at `path` says, up to 4095 bytes; nil if there is none or it can't be
  /// read. Corresponds to `readlink(2)`.
  public static func target(of path: String) -> String? {
    let capacity = 4096
    return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: capacity) { buffer in
      // The kernel writes at most the given length, and no zero behind it.
      guard let base = buffer.baseAddress else { return nil }
      let count = unsafe readlink(path, base, capacity - 1)
      guard count >= 0 else { return nil }
      unsafe buffer[count] = 0
      return unsafe String(cString: base)
    }
  }
}
