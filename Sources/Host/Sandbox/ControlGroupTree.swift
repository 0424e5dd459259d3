import Glibc

/// The host's cgroups, version 2, as this process sees them: directories with files of a line or a few
/// (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
package struct ControlGroupTree {
  /// The directory at which they are mounted.
  package let top: String
  /// That of the group which this process is in.
  package let own: String

  /// This process's; nil where none are mounted, or only some that it isn't in.
  init?() {
    self.init(
      mounts: Self.text(of: "/proc/self/mountinfo"), groups: Self.text(of: "/proc/self/cgroup"))
  }

  /// The same by what these two files say (proc(5)).
  package init?(mounts: String, groups: String) {
    guard let line = groups.split(separator: "\n").first(where: { $0.hasPrefix("0::/") }) else {
      return nil
    }
    // Outside of what a container shows it begins with two dots.
    let group = line.dropFirst(3)
    guard !group.split(separator: "/").contains("..") else { return nil }
    for line in mounts.split(separator: "\n") {
      let words = line.split(separator: " ").map(String.init)
      guard words.count > 6, let end = words.firstIndex(of: "-"),
        words[end...].dropFirst().first == "cgroup2"
      else { continue }
      let root = words[3] == "/" ? "" : Self.plain(words[3])
      guard group == root || group.hasPrefix(root + "/") else { continue }
      top = Self.plain(words[4])
      let rest = group.dropFirst(root.count)
      own = rest == "/" ? top : top + rest
      return
    }
    return nil
  }

  /// A name of mountinfo's, whose spaces and the like are octal numbers behind a backslash.
  private static func plain(_ name: String) -> String {
    let parts = name.split(separator: "\\", omittingEmptySubsequences: false)
    return parts.dropFirst().reduce(String(parts.first ?? "")) { text, part in
      let scalar = UInt8(part.prefix(3), radix: 8).map { String(Unicode.Scalar($0)) }
      return text + (scalar ?? "\\" + part.prefix(3)) + part.dropFirst(3)
    }
  }

  // MARK: Groups

  /// Whether the own group is the root of all, which alone may have processes and groups in it.
  var ownIsRoot: Bool { !FileDescriptor.exists(own + "/cgroup.type") }

  /// The group that the own one is in, as far as that is to be seen.
  var parent: String? {
    guard own != top, let slash = own.lastIndex(of: "/") else { return nil }
    return String(own[..<slash])
  }

  /// The controllers that the group at `directory` has been given.
  static func controllers(of directory: String) -> Set<ControlGroup.Controller> {
    controllers(by: directory + "/cgroup.controllers")
  }

  /// Those that it hands on to the groups in it.
  static func handedOn(by directory: String) -> Set<ControlGroup.Controller> {
    controllers(by: directory + "/cgroup.subtree_control")
  }

  private static func controllers(by path: String) -> Set<ControlGroup.Controller> {
    let words = text(of: path).split { $0.isWhitespace }
    return Set(words.compactMap { ControlGroup.Controller(rawValue: String($0)) })
  }

  /// The processes in the group at `directory`; 0 for one that this process can't see.
  static func processes(in directory: String) -> [Int32] {
    text(of: directory + "/cgroup.procs").split(separator: "\n").compactMap { Int32($0) }
  }

  /// Whether this process may make groups in the one at `directory`, and move processes there.
  static func isOpen(_ directory: String) -> Bool {
    // The names are read while the calls last.
    ["", "/cgroup.procs", "/cgroup.subtree_control"].allSatisfy {
      unsafe access(directory + $0, W_OK) == 0
    }
  }

  // MARK: Files

  /// What is in the file at `path`, up to a MiB; empty where it can't be read.
  static func text(of path: String) -> String {
    guard let file = try? FileDescriptor(opening: path, [.readOnly]) else { return "" }
    var bytes: [UInt8] = []
    while bytes.count < 1 << 20, let more = try? file.read(atMost: 4096), !more.isEmpty {
      bytes += more
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Writes `text` to the file at `path`, in one piece.
  static func write(_ text: String, to path: String) throws(Errno) {
    try FileDescriptor(opening: path, [.writeOnly]).writeAll(text)
  }

  /// Makes the group at `directory`; what an earlier process of the same number left there is removed.
  static func make(_ directory: String) throws(Errno) {
    // The names are read while the calls last.
    if unsafe mkdir(directory, 0o755) == 0 { return }
    guard errno == EEXIST, unsafe rmdir(directory) == 0, unsafe mkdir(directory, 0o755) == 0 else {
      throw Errno.current
    }
  }

  /// Removes it when nobody is in it any more.
  static func remove(_ directory: String) {
    var pause: UInt32 = 500
    // The name is read while the call lasts.
    while unsafe rmdir(directory) != 0 && errno == EBUSY {
      usleep(pause)
      pause = min(pause * 2, 100_000)
    }
  }
}
