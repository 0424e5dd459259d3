import CLinux
import Glibc
import Synchronization

/// Namespaces of this process's own: an empty file system, and no network, nor names or queues of others.
///
/// Making them takes as long as a third of a short run, and ending them, too: another process makes them,
/// while this one opens what it needs, and is there until this one has ended.
package final class Namespaces: Sendable {
  /// What a host may let a process have of its own (namespaces(7)).
  package struct Kinds: OptionSet, Sendable {
    package let rawValue: Int32
    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// Users and rights; without root's rights the others need it.
    package static let user = Self(rawValue: Int32(CLINUX_NEWUSER))
    /// File systems.
    package static let files = Self(rawValue: Int32(CLINUX_NEWNS))
    /// System V and POSIX message queues, shared memory.
    package static let queues = Self(rawValue: Int32(CLINUX_NEWIPC))
    /// The host's name.
    package static let name = Self(rawValue: Int32(CLINUX_NEWUTS))
    /// Network interfaces and their sockets.
    package static let network = Self(rawValue: Int32(CLINUX_NEWNET))
  }

  private let socket: UnixSocket
  private let theirs: Mutex<UnixSocket?>

  private let asked = Atomic<Int32>(0)

  /// Those that are asked for.
  var kinds: Kinds { Kinds(rawValue: asked.load(ordering: .relaxed)) }

  /// What both sides talk by: for a process that is a copy of this one, which then makes some.
  init() throws(Errno) {
    var other: UnixSocket?
    socket = try UnixSocket(pairedWith: &other, .messages)
    theirs = Mutex(other)
  }

  /// In a copy of this process with nothing open yet: makes them once it is told which, and lets another
  /// copy go on.
  func makeInCopy() {
    guard clinux_fork() > 0 else { return }
    if let socket = theirs.withLock({ $0.take() }) { Self.hold(socket) }
  }

  /// Has those of `kinds` made, while this process goes on.
  package func begin(_ kinds: Kinds) throws(Errno) {
    asked.store(kinds.rawValue, ordering: .relaxed)
    try Self.send([kinds.rawValue], by: socket)
  }

  /// Moves this process, which has no other threads, into them. Returns which they are, and why it isn't
  /// all.
  package func join() -> (kinds: Kinds, lack: Errno?) {
    // Whose end is the end of the other side.
    theirs.withLock { $0 = nil }
    guard let words = Self.words(3, from: socket) else { return ([], .brokenPipe) }
    let made = Kinds(rawValue: words[1])
    let lack = words[2] == 0 ? nil : Errno(words[2])
    let process = clinux_pidfd_open(words[0])
    guard process >= 0 else { return ([], Errno.current) }
    let holder = FileDescriptor(owning: process)
    if made.contains(.user), !Self.enter(.user, of: holder) { return ([], Errno.current) }
    let others = made.subtracting(.user)
    guard others.isEmpty || Self.enter(others, of: holder) else {
      return (made.intersection(.user), Errno.current)
    }
    return (made, lack)
  }

  /// A thread that has been waited for may still be there for a moment, and be in the way.
  private static func enter(_ kinds: Kinds, of holder: borrowing FileDescriptor) -> Bool {
    for _ in 0..<1000 {
      if clinux_setns(holder.number, kinds.rawValue) == 0 { return true }
      guard errno == EINVAL, kinds.contains(.user) else { return false }
      usleep(50)
    }
    return false
  }

  // MARK: What both say

  private static func send(_ words: [Int32], by socket: borrowing UnixSocket) throws(Errno) {
    try socket.send(Words.bytes(words.map { UInt64(UInt32(bitPattern: $0)) }).span)
  }

  /// Waits for so many; nil where the other side has gone.
  private static func words(_ count: Int, from socket: borrowing UnixSocket) -> [Int32]? {
    while !socket.descriptor.isReadable(within: -1) {}
    var bytes = [UInt8](repeating: 0, count: count * 8)
    var files: [SharedDescriptor] = []
    var span = bytes.mutableSpan
    guard (try? socket.receive(into: &span, files: &files)) == bytes.count else { return nil }
    return Words.values(bytes[...]).map { Int32(truncatingIfNeeded: $0) }
  }

  // MARK: The other process

  private static func hold(_ socket: consuming UnixSocket) -> Never {
    Broker.closeOthers(but: socket.descriptor.number)
    _ = unsafe clinux_set_thread_name("kvmlite-names")
    guard let asked = words(1, from: socket) else { _exit(0) }
    let (made, lack) = make(Kinds(rawValue: asked[0]))
    // Whoever waits for it is told by the end, then.
    do throws(Errno) {
      try send([getpid(), made.rawValue, lack?.code ?? 0], by: socket)
    } catch { _exit(1) }
    // Until the other has come, or gone.
    while !socket.descriptor.isReadable(within: -1) {}
    _exit(0)
  }

  private static func make(_ kinds: Kinds) -> (Kinds, Errno?) {
    var made: Kinds = []
    if kinds.contains(.user) {
      let (user, group) = (geteuid(), getegid())
      guard clinux_unshare(Kinds.user.rawValue) == 0 else { return ([], .current) }
      made.insert(.user)
      // user_namespaces(7): groups may only be mapped where they can't be dropped.
      let maps = [
        ("uid_map", "\(user) \(user) 1"), ("setgroups", "deny"), ("gid_map", "\(group) \(group) 1"),
      ]
      for (name, text) in maps {
        do throws(Errno) {
          try FileDescriptor(opening: "/proc/self/\(name)", [.writeOnly]).writeAll(text)
        } catch { return ([], error) }
      }
    }
    var lack: Errno?
    for kind in [Kinds.files, .queues, .name, .network] where kinds.contains(kind) {
      if clinux_unshare(kind.rawValue) == 0 {
        made.insert(kind)
      } else {
        lack = lack ?? .current
      }
    }
    if made.contains(.files) {
      // The name is read while the call lasts.
      func empties(_ place: String) -> Bool { unsafe clinux_empty_root(place) == 0 }
      let isEmpty = ["/tmp", "/proc", "/dev", "/usr"].contains { empties($0) }
      if !isEmpty {
        lack = lack ?? .current
        made.remove(.files)
      }
    }
    return (made, lack)
  }
}
