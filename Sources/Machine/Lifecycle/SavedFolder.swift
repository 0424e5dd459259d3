import Host
import Memory

/// A saved machine's folder: `state` has the states of its parts, `memory` its guest's memory.
package enum SavedFolder {
  /// The file with the sections that `SavedMachine` has, and one that says how memory lies in its own.
  package static let state = "state"
  /// The file with the guest's memory.
  package static let memory = "memory"
  /// Writes a machine that stands still, with its `contents` and what the host has for it, to two open
  /// files, which are empty, and returns when they are on stable storage. Pages that `base` has aren't
  /// written.
  package static func write(
    _ saved: SavedMachine, _ contents: GuestMemory, _ resources: Resources,
    state: borrowing FileDescriptor, memory: borrowing FileDescriptor,
    onto base: HeldMachine.Onto? = nil
  ) throws(SaveError) {
    typealias Name = SavedMachine.Name
    let chain = try open(base, for: contents)
    let disks = try resources.stampDisks()
    do throws(Errno) {
      var writer = SavedMemoryWriter(onto: chain?.memory)
      let table = try writer.write(contents, to: memory)
      try memory.synchronizeData()
      var more = [
        (Name.memory, table.bytes), (Name.disks, disks), (Name.origin, try SavedOrigin().bytes),
      ]
      if let base, let pages = writer.pages, let origin = chain?.links[0].origin {
        more.append((Name.base, SavedBase(path: base.path, id: origin.id, pages: pages).bytes))
      }
      let sections = more.map {
        SavedMachine.Section(name: $0, version: Name.version, bytes: $1)
      }
      try state.writeAll(SavedMachine(sections: saved.sections + sections).bytes.span)
      try state.synchronizeData()
    } catch { throw .file(error) }
  }

  /// The saves of `base`, whose memory is laid out as `contents`.
  private static func open(
    _ base: HeldMachine.Onto?, for contents: GuestMemory
  ) throws(SaveError) -> SavedChain? {
    guard let base else { return nil }
    do throws(RestoreError) {
      let chain = try SavedChain(base.files)
      guard chain.links[0].table.regions == SavedMemoryTable.regions(of: contents) else {
        throw .memory
      }
      guard chain.links[0].origin != nil else { throw .missing(section: SavedMachine.Name.origin) }
      guard chain.links.count < SavedChain.longest else { throw .longChain(base.path) }
      return chain
    } catch { throw .base(error) }
  }

  /// One that is to be made, and takes the place of one at `path`.
  package static func new(_ path: String) -> NewFolder { NewFolder(path, [state, memory]) }

  /// Why `folder` may not be made, in words; nil if it may.
  package static func refusal(of folder: NewFolder) -> String? {
    folder.mayReplace
      ? nil : "\(folder.path): is there already, and no saved machine: give another name"
  }

  /// A folder that has been opened.
  package struct Opened: Sendable {
    package let path: String
    package let machine: SavedMachine
    package let memory: SavedMemoryFile
  }

  /// Opens the folder at `path`, and those of the saves that it was made onto.
  package static func open(_ path: String) throws(RestoreError) -> Opened {
    var chain = SavedChain()
    try chain.open(path)
    return Opened(path: path, machine: chain.links[0].machine, memory: chain.memory)
  }
}

extension SavedLink {
  /// The save in the folder `path`.
  init(opening path: String) throws(RestoreError) {
    let state: SharedDescriptor
    let memory: SharedDescriptor
    do throws(Errno) {
      state = try Self.open("\(path)/\(SavedFolder.state)")
      memory = try Self.open("\(path)/\(SavedFolder.memory)")
    } catch { throw .file(error) }
    try self.init(path, state: state, memory: memory)
  }

  private static func open(_ path: String) throws(Errno) -> SharedDescriptor {
    SharedDescriptor(try FileDescriptor(opening: path, [.readOnly, .nonBlocking]))
  }
}

extension SavedChain {
  /// Adds the save in the folder `path`, and all that it needs.
  package mutating func open(_ path: String) throws(RestoreError) {
    try append(SavedLink(opening: path))
    while let last = links.last, let base = last.base {
      guard links.count < Self.longest else { throw .longChain(path) }
      let path = base.path(from: last.path)
      let link: SavedLink
      do throws(RestoreError) { link = try SavedLink(opening: path) } catch {
        throw .base(path, error)
      }
      try append(link)
    }
  }
}
