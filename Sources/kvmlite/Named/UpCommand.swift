import ArgumentParser

/// `kvmlite up`: starts a machine in the background.
struct UpCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "up", abstract: "Start a machine in the background, by a name.",
    discussion: """
      Prints the name and returns when the machine runs; says what is wrong if it doesn't. Without \
      --name it is called after its image. The name of a machine that is known, instead of an image, \
      starts that one again. kvmlite attach shows its console, kvmlite ls all machines.
      """)

  @OptionGroup var machine: MachineOptions
  @OptionGroup var process: ProcessOptions
  @OptionGroup var named: NameOptions

  func run() throws { try NamedStart(machine, process, named).run(inBackground: true) }
}
