import ArgumentParser
import Host
import Machine
import Memory

/// `kvmlite migrate`: a running machine to another kvmlite.
struct MigrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate", abstract: "Move a running machine to another kvmlite.",
    discussion: """
      TO is unix:PATH or tcp:ADDRESS:PORT, where kvmlite receive listens, or exec:COMMAND, a command \
      that leads there by its standard input and output, as exec:"ssh host kvmlite receive - --name \
      box". The machine runs on here if anything fails, and never at both. Ctrl-C gives up. \
      Disks are opened by the other side by the same paths.
      """)

  @OptionGroup var machine: MachineArgument

  @Argument(help: ArgumentHelp("Where it goes.", valueName: "to"))
  var place: String

  @Option(
    help: ArgumentHelp(
      """
      How long the machine may stand still; it is slowed down until that is enough. (default: 300)
      """, valueName: "milliseconds"))
  var downtime: UInt64 = 300

  func run() throws {
    try ending { () throws(Failure) in
      let machine = try KnownMachine(machine.name)
      guard let to = MigrationPlace(place), place != "-" else {
        throw Failure(
          status: 64,
          message:
            "'\(place)' is no place for a machine: give unix:PATH, tcp:ADDRESS:PORT (digits) "
            + "or exec:COMMAND")
      }
      let client = try machine.connectToRunning()
      let watch = try machine.connectToRunning()
      let (socket, program): (SharedDescriptor, ChildProgram?)
      do throws(Errno) { (socket, program) = try to.connect() } catch {
        throw Failure(status: 71, message: "\(place): can't be reached: \(error)")
      }
      try move(machine, client, watch, socket)
      // It may be the machine's process by now.
      program?.leave()
      return 0
    }
  }

  private func move(
    _ machine: KnownMachine, _ client: borrowing ControlClient, _ watch: borrowing ControlClient,
    _ socket: SharedDescriptor
  ) throws(Failure) {
    do throws(ControlClient.Trouble) {
      try client.send(
        .migrate, [JSON.Member("downtime", JSON(.unsigned(downtime)))],
        files: [socket.file.number])
      let progress = ProgressLine()
      defer { progress.end() }
      while true {
        do throws(ControlClient.Trouble) {
          let end = try client.answer(until: Clock.monotonicNanoseconds &+ 500_000_000)
          progress.end()
          Message.note(
            "\(machine.name) runs there: \(Self.size(end.number("sent_bytes"))) in "
              + "\(end.number("round")) rounds; it stood still for \(end.number("downtime_us") / 1000) ms"
          )
          return
        } catch .late {
          if let found = try? watch.ask(.migration, until: KnownMachine.deadline) {
            progress.show(Self.line(found))
          }
        }
      }
    } catch .refused(let reason) {
      throw Failure(status: 71, message: "\(machine.name): \(reason)")
    } catch { throw Failure(error, machine) }
  }

  private static func line(_ found: JSON) -> String {
    let (left, rate) = (found.number("left_bytes"), found.number("bytes_per_second"))
    let rest = rate > 0 ? ", some \(left / rate + 1) s" : ""
    return "round \(found.number("round")): \(size(found.number("sent_bytes"))) sent, "
      + "\(size(left)) left\(rest)"
  }

  private static func size(_ bytes: UInt64) -> String { "\(bytes >> 20) MiB" }
}

/// A line on a terminal's standard error that is written again and again.
private struct ProgressLine {
  private let isShown = FileDescriptor(borrowing: 2).isTerminal

  func show(_ text: String) {
    if isShown { try? FileDescriptor(borrowing: 2).writeAll("\r\u{1B}[K" + text) }
  }

  func end() { show("") }
}

/// `kvmlite receive`: goes on with a machine that another kvmlite sends.
struct ReceiveCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "receive", abstract: "Go on with a machine that another kvmlite sends.",
    discussion: """
      FROM is unix:PATH or tcp:[ADDRESS:]PORT, where kvmlite migrate comes to, on this host alone \
      unless an address is given; or -, standard input and output, which are then used for that \
      alone. Nothing of tcp is secret or proves who it is: between hosts use ssh. Exit status as of \
      kvmlite run.
      """)

  @Argument(help: ArgumentHelp("Where it comes from.", valueName: "from"))
  var place: String

  @OptionGroup var process: ProcessOptions
  @OptionGroup var named: NameOptions

  func run() throws {
    let origin: Session.Origin
    let spec: VMConfiguration
    do throws(Failure) {
      guard let from = MigrationPlace(place) else {
        throw Failure(
          status: 64,
          message: "'\(place)' is no place to wait at: give unix:PATH, tcp:[ADDRESS:]PORT or -")
      }
      guard place != "-" || named.name != nil else {
        throw Failure(
          status: 64,
          message: "a machine that comes by - has no terminal: give it a name by --name, and see: "
            + "kvmlite attach")
      }
      (origin, spec) = try receive(from)
    } catch {
      Message.error(error.message)
      throw ExitCode(error.status)
    }
    if named.name != nil {
      try NamedStart(spec, from: origin, process, named).run(inBackground: false)
    }
    var settings = process.settings
    settings.isFromFile = true
    settings.origin = origin
    throw ExitCode(Session(spec, settings).run())
  }

  private func receive(
    _ from: MigrationPlace
  ) throws(Failure) -> (Session.Origin, VMConfiguration) {
    let ends: (input: SharedDescriptor, output: SharedDescriptor)
    do throws(Errno) {
      ends = try from.accept { Message.note("a machine can come to \(place)") }
    } catch {
      throw Failure(status: 71, message: "\(place): nobody can come: \(error)")
    }
    let target = MigrationTarget(MigrationStream(ends.input, ends.output))
    var progress = ProgressBar()
    defer { progress.end() }
    var size: UInt64 = 0
    do throws(MigrationTarget.Trouble) {
      let arrived = try target.receive(
        told: { spec throws(RestoreError) in size = spec.memorySize },
        progress: { progress.show(min($0, size), of: size) })
      do throws(RestoreError) {
        var origin = Session.Origin(arrived.machine, .moved(arrived.memory), from: place)
        (origin.sender, origin.leavesError) = (target, place == "-")
        return (origin, try arrived.machine.spec())
      } catch { throw .restore(error) }
    } catch {
      switch error {
      case .stream(let trouble): throw Failure(trouble, place)
      case .restore(let error): throw Failure(error, place)
      }
    }
  }
}
