import CLinux
import Glibc

/// Names of files.
package enum FileName {
  /// Gives the file called `old` the name `new`; unless `replaces`, only where nothing has it, else
  /// `EEXIST`. The change is safe from a power cut when this returns. Corresponds to `rename(2)` and
  /// `link(2)`.
  package static func move(_ old: String, to new: String, replaces: Bool) throws(Errno) {
    if replaces {
      guard unsafe rename(old, new) == 0 else { throw Errno.current }
    } else if unsafe link(old, new) == 0 {
      unsafe unlink(old)
    } else {
      guard errno != EEXIST, unsafe access(new, F_OK) != 0 else { throw Errno.exists }
      // A file system without links.
      guard unsafe rename(old, new) == 0 else { throw Errno.current }
    }
    keep(new)
  }

  /// Gives a file that `FileDescriptor(linkableIn:)` made the name `new`; where something has it, that
  /// is `EEXIST`, or the file is called `between` for a moment, where that is given, and replaces it.
  /// The change is safe from a power cut when this returns. Corresponds to `linkat(2)` and `rename(2)`.
  package static func give(
    _ file: borrowing FileDescriptor, _ new: String, replacingBy between: String? = nil
  ) throws(Errno) {
    let old = "/proc/self/fd/\(file.number)"
    func link(_ name: String) -> Bool {
      unsafe linkat(AT_FDCWD, old, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0
    }
    if !link(new) {
      guard errno == EEXIST, let between, link(between) else { throw Errno.current }
      guard unsafe rename(between, new) == 0 else {
        let error = Errno.current
        remove(between)
        throw error
      }
    }
    keep(new)
  }

  /// Makes the directory `new` where there is none, for this user alone. Corresponds to `mkdir(2)`.
  package static func makeDirectory(_ path: String) throws(Errno) {
    guard unsafe mkdir(path, 0o700) == 0 else { throw Errno.current }
  }

  /// Gives the directory called `old` the name `new`, or, where that is another directory's, each the
  /// other's name. The change is safe from a power cut when this returns, and so are the names in it.
  /// Corresponds to `renameat2(2)`.
  package static func exchange(_ old: String, _ new: String) throws(Errno) {
    keep(old + "/")
    let exchanges: UInt32 = 2  // RENAME_EXCHANGE
    let flags: UInt32 = unsafe access(new, F_OK) == 0 ? exchanges : 0
    guard unsafe clinux_rename(old, new, flags) == 0 else { throw Errno.current }
    keep(new)
  }

  // Makes the names in a file's directory safe from a power cut.
  private static func keep(_ path: String) {
    if let opened = try? FileDescriptor(opening: directory(of: path), [.readOnly]) {
      fsync(opened.number)
    }
  }

  /// The directory that the name `path` is in.
  package static func directory(of path: String) -> String {
    path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
  }

  /// `path` from the root on, as seen from the working directory; itself where that has no name.
  /// Corresponds to `getcwd(3)`.
  package static func absolute(_ path: String) -> String {
    // The C library allocates the string, which is copied and freed at once.
    guard !path.hasPrefix("/"), let name = unsafe getcwd(nil, 0) else { return path }
    defer { unsafe free(name) }
    return unsafe String(cString: name) + "/" + path
  }

  /// How `path` is called by whoever is in `folder`, both from the root on and without links; itself where
  /// they have nothing in common but the root.
  package static func relative(_ path: String, from folder: String) -> String {
    let (path, folder) = (path.split(separator: "/"), folder.split(separator: "/"))
    let common = zip(path, folder).prefix { $0 == $1 }.count
    guard common > 0 else { return "/" + path.joined(separator: "/") }
    let up = [Substring](repeating: "..", count: folder.count - common)
    let names = up + path[common...]
    return names.isEmpty ? "." : names.joined(separator: "/")
  }

  /// Removes a file's name. Corresponds to `unlink(2)`.
  package static func remove(_ path: String) { unsafe unlink(path) }

  /// The name of the file at `path` without symbolic links; nil if there is no such file. Corresponds
  /// to `realpath(3)`.
  package static func withoutLinks(_ path: String) -> String? {
    // The C library allocates the string, which is copied and freed at once.
    guard let name = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(name) }
    return unsafe String(cString: name)
  }

  /// What the symbolic link at `path` says, up to 4095 bytes; nil if there is none or it can't be
  /// read. Corresponds to `readlink(2)`.
  package static func target(of path: String) -> String? {
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
