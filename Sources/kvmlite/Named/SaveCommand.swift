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

      With --onto only memory is written that is not as in an earlier save, which the new one then \
      needs, as it is and where it is seen from there. kvmlite save --flatten FOLDER makes it need no \
      other.
      """)

  @Argument(help: ArgumentHelp("The machine's name (see: kvmlite ls).", valueName: "machine"))
  var name: String?

  @Argument(help: ArgumentHelp("The folder.", valueName: "folder"))
  var folder: String?

  @Option(
    help: ArgumentHelp("Write only what isn't in this save, of this machine.", valueName: "folder"))
  var onto: String?

  @Option(
    help: ArgumentHelp(
      "Instead of saving a machine, copy into this save what it needs of those it was made onto.",
      valueName: "folder"))
  var flatten: String?

  @Flag(help: "End the machine when it is saved, without another instruction of its guest.")
  var stop = false

  func validate() throws {
    if flatten != nil {
      guard name == nil, onto == nil, !stop else {
        throw ValidationError("--flatten FOLDER changes a save: it takes no machine")
      }
    } else if name == nil || folder == nil {
      throw ValidationError("give a machine's name and a folder: kvmlite save NAME FOLDER")
    }
  }

  func run() throws {
    try ending { () throws(Failure) in
      if let flatten { return try FlattenedSave(flatten).make() }
      guard let name, let folder else { return 64 }
      let machine = try KnownMachine(name)
      let client = try machine.connectToRunning()
      // Its process says so, too; but before anything is made it is the wish that was wrong.
      if let what = (try? machine.places.readSpec())?.unsavable {
        throw Failure(status: 64, message: "\(machine.name) can't be saved: \(what)")
      }
      try save(machine, client, to: SavedFolder.new(folder))
      return stop ? try KillCommand.end(machine, client) : 0
    }
  }

  private func save(
    _ machine: KnownMachine, _ client: borrowing ControlClient, to place: NewFolder
  ) throws(Failure) {
    let base = try onto.map { (path) throws(Failure) in
      try EarlierSave(path, of: machine, for: place)
    }
    try place.fill { () throws(Failure) in try write(machine, client, place, base) }
  }

  private func write(
    _ machine: KnownMachine, _ client: borrowing ControlClient, _ place: NewFolder,
    _ base: EarlierSave?
  ) throws(Failure) {
    let (state, memory) = try place.makeFiles()
    do throws(ControlClient.Trouble) {
      let most = try client.ask(.stats, until: KnownMachine.deadline).number("touched_bytes")
      try client.send(
        .save, [JSON.Member("stay", JSON(.bool(stop)))] + (base?.members ?? []),
        files: [state.file.number, memory.file.number] + (base?.files ?? []))
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
