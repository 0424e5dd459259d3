import Host
import Memory

/// A saved machine's folder: `state` has the states of its parts, `memory` its guest's memory.
package enum SavedFolder {
  /// The file with the sections that `SavedMachine` has, and one that says how memory lies in its own.
  package static let state = "state"
  /// The file with the guest's memory.
  package static let memory = "memory"
  /// Bytes of `state`: more is nothing that was saved.
  private static let longestState: UInt64 = 1 << 30

  /// Writes a machine that stands still, with its `contents` and what the host has for it, to two open
  /// files, which are empty, and returns when they are on stable storage.
  package static func write(
    _ saved: SavedMachine, _ contents: GuestMemory, _ resources: Resources,
    state: borrowing FileDescriptor, memory: borrowing FileDescriptor
  ) throws(SaveError) {
    typealias Name = SavedMachine.Name
    let disks = try resources.stampDisks()
    do throws(Errno) {
      let table = try SavedMemoryFile.write(contents, to: memory)
      try memory.synchronizeData()
      let more = [(Name.memory, table), (Name.disks, disks)].map {
        SavedMachine.Section(name: $0, version: Name.version, bytes: $1)
      }
      try state.writeAll(SavedMachine(sections: saved.sections + more).bytes.span)
      try state.synchronizeData()
    } catch { throw .file(error) }
  }

  /// One that is to be made, and takes the place of one at `path`.
  package static func new(_ path: String) -> NewFolder { NewFolder(path, [state, memory]) }

  /// A folder that has been opened.
  package struct Opened: Sendable {
    package let path: String
    package let machine: SavedMachine
    package let memory: SavedMemoryFile
  }

  /// Opens the folder at `path`.
  package static func open(_ path: String) throws(RestoreError) -> Opened {
    let bytes: [UInt8]
    let file: SharedDescriptor
    do throws(Errno) {
      bytes = try WholeFile.contents(of: "\(path)/\(state)", limit: longestState)
      file = SharedDescriptor(
        try FileDescriptor(opening: "\(path)/\(memory)", [.readOnly, .nonBlocking]))
    } catch { throw .file(error) }
    let machine = try SavedMachine(bytes: bytes)
    let name = SavedMachine.Name.memory
    let table = try machine.fields(name)
    do {
      return Opened(path: path, machine: machine, memory: try SavedMemoryFile(table, file))
    } catch { throw .section(name, error) }
  }
}
