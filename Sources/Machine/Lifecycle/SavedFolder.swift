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

  /// Writes a machine that stands still to two open files, which are empty, and returns when they are on
  /// stable storage.
  package static func write(
    _ saved: SavedMachine, _ contents: GuestMemory, state: borrowing FileDescriptor,
    memory: borrowing FileDescriptor
  ) throws(Errno) {
    typealias Name = SavedMachine.Name
    let table = try SavedMemoryFile.write(contents, to: memory)
    let section = SavedMachine.Section(name: Name.memory, version: Name.version, bytes: table)
    try memory.synchronizeData()
    try state.writeAll(SavedMachine(sections: saved.sections + [section]).bytes.span)
    try state.synchronizeData()
  }

  /// Opens the folder at `path`.
  package static func open(
    _ path: String
  ) throws(RestoreError) -> (machine: SavedMachine, memory: SavedMemoryFile) {
    let bytes: [UInt8]
    let file: SharedDescriptor
    do throws(Errno) {
      bytes = try WholeFile.contents(of: "\(path)/\(state)", limit: longestState)
      file = SharedDescriptor(try FileDescriptor(opening: "\(path)/\(memory)", [.readOnly]))
    } catch { throw .file(error) }
    let machine = try SavedMachine(bytes: bytes)
    let name = SavedMachine.Name.memory
    let table = try machine.fields(name)
    do { return (machine, try SavedMemoryFile(table, file)) } catch { throw .section(name, error) }
  }
}
