import CLinux
import Glibc

/// What a process gives up before it runs the first instruction of a guest, and all of its threads with it.
///
/// Each layer stands without the others: what the host doesn't have is told, and the rest still holds.
package struct Confinement: Sendable {
  /// One thing that is given up.
  package struct Layer: Sendable {
    /// What there is to give up, in a few words.
    package enum Kind: String, CaseIterable, Sendable {
      case userNamespace = "namespace of users"
      case fileNamespace = "namespace of files"
      case networkNamespace = "namespace of network"
      case queueNamespace = "namespace of queues"
      case nameNamespace = "namespace of host name"
      case coreDumps = "core dumps"
      case openFiles = "number of open files"
      case user
      case capabilities
      case dumpable = "memory that others may see"
      case newRights = "new rights"
      case landlock = "Landlock"
      case violations
      case systemCalls = "system calls"
      case memoryLimit = "limit of memory"
      case processorLimit = "limit of processor time"
      case threadLimit = "limit of threads"
      case diskLimit = "limit of disks"
    }
    package let kind: Kind
    /// The user's number, or Landlock's version.
    package var number: Int?
    /// Why it isn't; nil where it is.
    package let lack: String?

    package init(_ kind: Kind, number: Int? = nil, lack: String?) {
      (self.kind, self.number, self.lack) = (kind, number, lack)
    }

    /// In a few words.
    package var name: String { kind.rawValue + (number.map { " \($0)" } ?? "") }
  }

  /// Another user, whom nobody else has to be.
  package struct User: Equatable, Sendable {
    package var user: UInt32
    package var group: UInt32
    package init(user: UInt32, group: UInt32) { (self.user, self.group) = (user, group) }

    /// One that no other process of this kind has meanwhile, by this process's number: far above those
    /// that are given to people and services.
    package static var unshared: User {
      let number = 0x7000_0000 + UInt32(getpid())
      return User(user: number, group: number)
    }
  }

  /// Whether a system call that they stop is noted and made all the same.
  package var onlyNotes = false
  /// Who the process shall be; nil for whoever it is.
  package var user: User?
  /// Whether threads are started that start others.
  package var startsWorkers = true

  package init() {}

  /// Which namespaces a process has made for it, with root's rights or without.
  package static func kinds(keepsNetwork: Bool) -> Namespaces.Kinds {
    var kinds: Namespaces.Kinds = [.files, .queues, .name]
    if geteuid() != 0 { kinds.insert(.user) }
    if !keepsNetwork { kinds.insert(.network) }
    return kinds
  }

  /// Gives all of it up, for ever. This process has no other thread, and has opened all it needs. `event`
  /// is raised when a thread breaks out of its filter, for who tells of it; without one that thread does.
  /// Throws if there is no thread to be had for starting others.
  package func enter(
    _ namespaces: Namespaces?, violation event: Int32?
  ) throws(Errno) -> [Layer] {
    // Made while another process makes the namespaces.
    let filters = ThreadFilters.current
    let filter = filters?.filter(for: .loop)
    _ = filters?.filter(for: .vcpu)
    var layers: [Layer] = []
    func note(_ kind: Layer.Kind, _ result: Int32, _ number: Int? = nil) {
      let lack = result == 0 ? nil : Errno.current.description
      layers.append(Layer(kind, number: number, lack: lack))
    }
    let files = enter(namespaces, &layers)
    note(.coreDumps, clinux_limit(Int32(RLIMIT_CORE.rawValue), 0))
    note(.openFiles, clinux_limit_descriptors())
    if let user { note(.user, clinux_become(user.user, user.group), Int(user.user)) }
    note(.capabilities, clinux_drop_capabilities())
    note(.dumpable, clinux_not_dumpable())
    note(.newRights, clinux_no_new_rights())
    if !files { landlock(&layers) }
    if let filter {
      unsafe clinux_sandbox().pointee.before_end = { Terminal.restoreNow() }
      note(.violations, clinux_take_violations(onlyNotes ? 1 : 0, event ?? -1))
      layers.append(Self.install(filter))
      // Behind the filter, which that thread then has, too.
      if startsWorkers { try Spawner.start() }
    }
    return layers
  }

  /// Gives up what a command doesn't need that runs no guest: new rights, core dumps, and all system calls
  /// that `filter` doesn't let through. Returns the layer that the filter is. This process has no other
  /// thread.
  package static func enterFilter(_ filter: SystemCallFilter) -> Layer {
    clinux_limit(Int32(RLIMIT_CORE.rawValue), 0)
    clinux_no_new_rights()
    defer { Takeover.act(as: .loop) }
    return install(filter)
  }

  private static func install(_ filter: SystemCallFilter) -> Layer {
    do throws(Errno) { try filter.install() } catch {
      return Layer(.systemCalls, lack: "\(error)")
    }
    return Layer(.systemCalls, lack: nil)
  }

  /// Returns whether no file can be reached.
  private func enter(_ namespaces: Namespaces?, _ layers: inout [Layer]) -> Bool {
    guard let namespaces else { return false }
    let (kinds, lack) = namespaces.join()
    let all: [(Namespaces.Kinds, Layer.Kind)] = [
      (.user, .userNamespace), (.files, .fileNamespace), (.network, .networkNamespace),
      (.queues, .queueNamespace), (.name, .nameNamespace),
    ]
    for (kind, layer) in all {
      if namespaces.kinds.contains(kind) {
        let isThere = kinds.contains(kind)
        layers.append(Layer(layer, lack: isThere ? nil : lack?.description))
      } else if kind == .network {
        layers.append(Layer(layer, lack: "a back end needs the host's"))
      }
    }
    return kinds.contains(.files)
  }

  /// For hosts that allow no namespaces.
  private func landlock(_ layers: inout [Layer]) {
    let version = clinux_landlock_version()
    guard version > 0 else {
      layers.append(Layer(.landlock, lack: Errno.current.description))
      return
    }
    let result = clinux_landlock(version)
    let lack = result == 0 ? nil : Errno.current.description
    layers.append(Layer(.landlock, number: Int(version), lack: lack))
  }
}

/// A system call that a filter stopped.
package enum Violation {
  /// The first one, in words; nil where there was none.
  package static var first: String? {
    // Written once, before the event is raised that is waited for; the text has a bound.
    guard unsafe clinux_sandbox().pointee.count > 0 else { return nil }
    var text = [UInt8](repeating: 0, count: 400)
    let count = unsafe text.withUnsafeMutableBytes { bytes in
      unsafe bytes.withMemoryRebound(to: CChar.self) {
        unsafe clinux_violation_text(&clinux_sandbox().pointee.first, $0.baseAddress, $0.count)
      }
    }
    return String(decoding: text.prefix(count), as: UTF8.self)
  }

  /// The address behind the instruction by which a call that is only noted is made.
  package static var exemptAddress: UInt64 {
    var address: UInt64 = 0
    let none = [Int64](repeating: 0, count: 6)
    // It writes the address and makes no call.
    _ = unsafe none.withUnsafeBufferPointer { unsafe clinux_raw_call(0, $0.baseAddress, &address) }
    return address
  }
}
