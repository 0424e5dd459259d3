import ArgumentParser
import Guests
import Host

/// `kvmlite guests`: the built-in guests.
struct GuestsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "guests", abstract: "List the built-in guests, or write one to a file.",
    subcommands: [List.self, Export.self], defaultSubcommand: List.self)

  /// `kvmlite guests list`.
  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the built-in guests.")

    func run() throws {
      let width = (Guest.all.map(\.name.count).max() ?? 0) + 2
      var text = ""
      for guest in Guest.all {
        text += column(guest.name, width) + column(guest.mode.rawValue, 11) + guest.summary + "\n"
      }
      text += "\nRun one: kvmlite guest:NAME    Write one to a file: kvmlite guests export NAME\n"
      try Message.output(text)
    }
  }

  /// `kvmlite guests export`.
  struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Write a built-in guest to a file.")

    @Argument(help: "The guest's name.")
    var name: String

    @Option(
      name: .shortAndLong,
      help: ArgumentHelp("Where to. (default: NAME.bin)", valueName: "path"))
    var output: String?

    func run() throws {
      guard let guest = Guest.named(name) else {
        let failure = Failure(noGuest: name)
        Message.error(failure.message)
        throw ExitCode(failure.status)
      }
      let path = output ?? "\(name).bin"
      do throws(Errno) {
        let file = try OutputFile(path)
        do throws(Errno) {
          try file.write(guest.image)
          try file.commit()
        } catch {
          file.abandon()
          throw error
        }
      } catch {
        Message.error("\(path): can't be written: \(error)")
        throw ExitCode(71)
      }
      let mode =
        guest.format == .flat && guest.mode != .real ? "--mode \(guest.mode.rawValue) " : ""
      let cpus = guest.cpus > 1 ? "--cpus \(guest.cpus) " : ""
      Message.note("wrote \(path); run it with: kvmlite \(mode)\(cpus)\(path)")
    }
  }
}
