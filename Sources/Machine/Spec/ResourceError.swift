import Host
import Network
import Storage
import VhostUser

/// Why something that a spec names can't be had.
package struct ResourceError: Error, Sendable, CustomStringConvertible {
  /// For which device: its id; `image`, `firmware` or `initrd`.
  package let id: String
  /// What happened.
  package let cause: Cause

  init(_ id: String, _ cause: Cause) {
    self.id = id
    self.cause = cause
  }

  /// What can happen.
  package enum Cause: Sendable {
    /// The file can't be read.
    case file(String, Errno)
    /// It has more bytes than make sense.
    case tooLarge(String, limit: UInt64)
    /// There is no built-in guest of that name; perhaps one is meant that has nearly that.
    case noGuest(String, near: String?)
    /// The file is in use for another device, which would be spoilt.
    case sameFile(String, other: String)
    /// The spec doesn't say what is behind the device, and nobody gave anything.
    case noBackEnd
    /// The disk can't be used.
    case disk(DiskError)
    /// No process serves the disk at that path.
    case vhostUser(String, VhostUserError)
    /// The network can't be used.
    case network(NetworkError)
    /// The console's file can't be written.
    case output(String, Errno)
    /// There is no pseudo terminal to be had.
    case terminal(Errno)
  }

  /// What happened to what.
  package var description: String {
    switch cause {
    case .file(let path, let error): "\(path): can't be read: \(error)"
    case .tooLarge(let path, let limit): "\(path): larger than \(limit >> 20) MiB"
    case .noGuest(let name, let near):
      "there is no built-in guest '\(name)'" + (near.map { ": did you mean '\($0)'?" } ?? "")
    case .sameFile(let path, let other):
      "\(path): can't be for \(id) and for \(other) at the same time: one would spoil the other"
    case .noBackEnd: "\(id): nothing is behind it: give it a backend"
    case .disk(let error): "\(error)"
    case .vhostUser(let path, let error):
      "\(path): no disk is served there by vhost-user: \(error)"
    case .network(let error): "\(error)"
    case .output(let path, let error): "\(path): can't be written: \(error)"
    case .terminal(let error): "no pseudo terminal to be had: \(error)"
    }
  }
}
