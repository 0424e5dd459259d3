import ArgumentParser
import Host
import Machine

/// `kvmlite save`: a running machine to a folder.
struct SaveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "save", abstract: "Save a running machine to a folder.",
    discussion: """
      The machine stands still while it is written, and goes on, or ends with --stop. A save that is \
      there already is replaced when the new one is whole. What disks hold isn't copied: who lets the \
      machine go on and write to them can't restore it, and is told so.
      """)

  @OptionGroup var machine: MachineArgument

  @Argument(help: ArgumentHelp("The folder.", valueName: "folder"))
  var folder: String

  @Flag(help: "End the machine when it is saved, without another instruction of its guest.")
  var stop = false

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      let client = try machine.connectToRunning()
      // Its process says so, too; but before anything is made it is the wish that was wrong.
      if let what = (try? machine.places.readSpec())?.unsavable {
        throw Failure(status: 64, message: "\(machine.name) can't be saved: \(what)")
      }
      let place = try NewFolder(folder)
      do throws(Failure) {
        try save(machine, client, place)
        try place.keep()
      } catch {
        place.remove()
        throw error
      }
      return stop ? try KillCommand.end(machine, client) : 0
    }
  }

  private func save(
    _ machine: KnownMachine, _ client: borrowing ControlClient, _ place: NewFolder
  ) throws(Failure) {
    do throws(ControlClient.Trouble) {
      let most = try client.ask(.stats, until: KnownMachine.deadline).number("touched_bytes")
      try client.send(
        .save, [JSON.Member("stay", JSON(.bool(stop)))],
        files: [place.state.file.number, place.memory.file.number])
      var progress = ProgressBar()
      defer { progress.end() }
      let start = Clock.monotonicNanoseconds
      while true {
        do throws(ControlClient.Trouble) {
          _ = try client.answer(until: Clock.monotonicNanoseconds &+ 100_000_000)
          return
        } catch .late {
          guard Clock.monotonicNanoseconds &- start > 1_000_000_000 else { continue }
          progress.show(min((try? place.memory.file.facts().allocated) ?? 0, most), of: most)
        }
      }
    } catch .refused(let reason) {
      throw Failure(status: 71, message: "\(machine.name): \(reason)")
    } catch { throw Failure(error, machine) }
  }
}

/// A folder that is made beside the one that it takes the place of.
private struct NewFolder {
  private let path: String
  private let new: String
  let state: SharedDescriptor
  let memory: SharedDescriptor

  init(_ path: String) throws(Failure) {
    var path = path
    while path.count > 1 && path.hasSuffix("/") { path.removeLast() }
    // A link goes on leading there.
    path = FileName.withoutLinks(path) ?? path
    self.path = path
    new = "\(path).saving-\(LockHolder.currentProcess)"
    guard SavedFolder.mayReplace(path) else {
      throw Failure(
        status: 64, message: "\(path): is there already, and no saved machine: give another name")
    }
    do throws(Errno) {
      try FileName.makeDirectory(new)
      state = try Self.make("\(new)/\(SavedFolder.state)")
      memory = try Self.make("\(new)/\(SavedFolder.memory)")
    } catch {
      try? PrivateDirectory.remove(new)
      throw Failure(status: error == .noSpace ? 71 : 66, message: "\(new): can't be made: \(error)")
    }
  }

  private static func make(_ path: String) throws(Errno) -> SharedDescriptor {
    SharedDescriptor(
      try FileDescriptor(opening: path, [.readWrite, .create, .exclusive], permissions: 0o400))
  }

  /// Puts it in its place.
  func keep() throws(Failure) {
    do throws(Errno) { try SavedFolder.replace(path, by: new) } catch {
      throw Failure(status: 71, message: "\(path): can't be put in its place: \(error)")
    }
  }

  func remove() { try? PrivateDirectory.remove(new) }
}
