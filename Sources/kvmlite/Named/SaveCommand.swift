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
      try save(machine, client)
      return stop ? try KillCommand.end(machine, client) : 0
    }
  }

  private func save(
    _ machine: KnownMachine, _ client: borrowing ControlClient
  ) throws(Failure) {
    let place = SavedFolder.new(folder)
    guard place.mayReplace else {
      throw Failure(
        status: 64,
        message: "\(place.path): is there already, and no saved machine: give another name")
    }
    do throws(Errno) { try place.make() } catch {
      throw Failure(
        status: error == .noSpace ? 71 : 66,
        message: "\(place.path): no folder can be made beside it: \(error)")
    }
    do throws(Failure) {
      try write(machine, client, place)
      do throws(Errno) { try place.keep() } catch {
        throw Failure(
          status: 71, message: "\(place.path): can't be put in its place: \(error)")
      }
    } catch {
      place.remove()
      throw error
    }
  }

  private func write(
    _ machine: KnownMachine, _ client: borrowing ControlClient, _ place: NewFolder
  ) throws(Failure) {
    let state: SharedDescriptor
    let memory: SharedDescriptor
    do throws(Errno) {
      state = try place.makeFile(SavedFolder.state)
      memory = try place.makeFile(SavedFolder.memory)
    } catch { throw Failure(status: 71, message: "\(place.path): can't be made: \(error)") }
    do throws(ControlClient.Trouble) {
      let most = try client.ask(.stats, until: KnownMachine.deadline).number("touched_bytes")
      try client.send(
        .save, [JSON.Member("stay", JSON(.bool(stop)))],
        files: [state.file.number, memory.file.number])
      var progress = ProgressBar()
      defer { progress.end() }
      let start = Clock.monotonicNanoseconds
      while true {
        do throws(ControlClient.Trouble) {
          _ = try client.answer(until: Clock.monotonicNanoseconds &+ 100_000_000)
          return
        } catch .late {
          guard Clock.monotonicNanoseconds &- start > 1_000_000_000 else { continue }
          progress.show(min((try? memory.file.facts().allocated) ?? 0, most), of: most)
        }
      }
    } catch .refused(let reason) {
      throw Failure(status: 71, message: "\(machine.name): \(reason)")
    } catch { throw Failure(error, machine) }
  }
}
