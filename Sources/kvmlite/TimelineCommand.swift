import ArgumentParser
import Host

/// `kvmlite timeline`: a trace as a picture.
struct TimelineCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "timeline", abstract: "Draw a trace file as an SVG picture.",
    discussion: """
      For example: kvmlite --trace-file out.json IMAGE; kvmlite timeline out.json > out.svg
      """)

  @Argument(help: "What --trace-file wrote.")
  var trace: String

  func run() throws {
    let json: [UInt8]
    do throws(Failure) { json = try InputFile.contents(of: trace, limit: 1 << 30) } catch {
      Message.error(error.message)
      throw ExitCode(error.status)
    }
    let picture: String
    do throws(Failure) { picture = TimelineSVG(try Timeline(json: json)).text() } catch {
      Message.error("\(trace): \(error.message)")
      throw ExitCode(error.status)
    }
    try Message.output(picture)
  }
}
