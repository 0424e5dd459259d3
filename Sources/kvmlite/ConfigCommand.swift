import ArgumentParser
import Host
import Machine

/// `kvmlite config`: the machine that options describe, as JSON.
struct ConfigCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "Print the machine that options describe, as JSON.",
    discussion: """
      kvmlite --config FILE runs what this prints. Paths become absolute, so that the file may be put \
      anywhere. Options that say how to run it, such as --timeout, are no part of it. docs/spec.md \
      says what each key means.
      """)

  @OptionGroup var machine: MachineOptions
  @OptionGroup var process: ProcessOptions

  func run() throws {
    var spec = try machine.read()
    spec.changePaths(FileName.absolute)
    try Message.output(spec.json.text)
  }
}
