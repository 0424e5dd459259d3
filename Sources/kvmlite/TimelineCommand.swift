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
    do throws(Failure) {
      let timeline = try Timeline(json: try InputFile.contents(of: trace, limit: 1 << 30))
      try? FileDescriptor(borrowing: 1).writeAll(TimelineSVG(timeline).text())
    } catch {
      Message.error("\(trace): \(error.message)")
      throw ExitCode(error.status)
    }
  }
}
