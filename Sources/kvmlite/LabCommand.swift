import ArgumentParser
import Host
import Lab

/// `kvmlite lab`: the course's experiments.
struct LabCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lab", abstract: "Run an experiment of the virtualization course, or list them.",
    discussion: """
      docs/labs has a sheet for each. Exit status: 0, or 1 when not all that was checked is right.
      """)

  @Argument(help: "The experiment's name. (default: list them)")
  var name: String?

  @Flag(help: "Print what was found as JSON.")
  var json = false

  @Option(help: ArgumentHelp("Write the report as a page with pictures.", valueName: "file"))
  var html: String?

  @Flag(help: "Print an empty sheet of answers to fill in.")
  var sheet = false

  @Option(help: ArgumentHelp("Grade the answers in this file.", valueName: "answers"))
  var check: String?

  @Option(
    help: ArgumentHelp("Grade a guest that was written for the exercise.", valueName: "image"))
  var guest: String?

  @Option(help: "How to print a grade: text, tap or junit.")
  var format = Grade.Format.text

  func validate() throws {
    guard name == nil else { return }
    if json || sheet || html != nil || check != nil || guest != nil {
      throw ValidationError("which experiment? See: kvmlite lab")
    }
  }

  func run() throws {
    guard let name else { return try write(list) }
    guard let experiment = Experiment.named(name) else {
      Message.error("there is no experiment '\(name)'; see: kvmlite lab")
      throw ExitCode(64)
    }
    if let guest { return try grade(guest, experiment) }
    let answers = try check.map(readSheet)
    let report: Report
    do { report = try experiment.run() } catch { throw failure(error) }
    if let html { try writePage(HTMLReport.text(report), to: html) }
    if let answers {
      let grade = Grade(answers, report)
      try write(grade.text(format))
      throw ExitCode(grade.isPerfect ? 0 : 1)
    }
    if json { return try write(JSONReport.text(report)) }
    if sheet { return try write(AnswerSheet.blank(for: report)) }
    let isColoured = FileDescriptor(borrowing: 1).isTerminal
    try write(TextReport.text(report, isColoured: isColoured))
  }

  private var list: String {
    let width = (Experiment.all.map(\.name.count).max() ?? 0) + 2
    var text = ""
    var lecture = ""
    for experiment in Experiment.all {
      if experiment.lecture != lecture {
        lecture = experiment.lecture
        text += (text.isEmpty ? "" : "\n") + lecture + "\n"
      }
      text += "  " + column(experiment.name, width) + experiment.title + "\n"
    }
    return text + "\nRun one: kvmlite lab NAME    Its sheet: docs/labs/NAME.md\n"
  }

  private func grade(_ path: String, _ experiment: Experiment) throws {
    let image = try read(path)
    let grade: Grade?
    do { grade = try experiment.grade(guest: image) } catch { throw failure(error) }
    guard let grade else {
      Message.error("'\(experiment.name)' has no exercise with a guest")
      throw ExitCode(64)
    }
    try write(grade.text(format))
    throw ExitCode(grade.isPerfect ? 0 : 1)
  }

  private func read(_ path: String) throws -> [UInt8] {
    do throws(Errno) {
      let file = try FileDescriptor(opening: path, [.readOnly])
      var bytes: [UInt8] = []
      while bytes.count < 1 << 20 {
        let more = try file.read(atMost: 1 << 16)
        guard !more.isEmpty else { break }
        bytes += more
      }
      return bytes
    } catch {
      Message.error("\(path): can't be read: \(error)")
      throw ExitCode(66)
    }
  }

  private func readSheet(_ path: String) throws -> AnswerSheet {
    let bytes = try read(path)
    do { return try AnswerSheet(String(decoding: bytes, as: UTF8.self)) } catch {
      Message.error("\(path): \(error)")
      throw ExitCode(65)
    }
  }

  private func failure(_ error: LabError) -> ExitCode {
    Message.error("the experiment came to nothing: \(error)")
    if case .kvm = error { Message.line("  what this host can do: kvmlite doctor") }
    return ExitCode(69)
  }

  private func writePage(_ page: String, to path: String) throws {
    do throws(Errno) {
      let file = try OutputFile(path)
      try file.write(Array(page.utf8))
      try file.commit()
    } catch {
      Message.error("\(path): can't be written: \(error)")
      throw ExitCode(71)
    }
  }

  private func write(_ text: String) throws {
    do throws(Errno) { try FileDescriptor(borrowing: 1).writeAll(text) } catch {
      Message.error("the report can't be written: \(error)")
      throw ExitCode(71)
    }
  }
}

extension Grade.Format: ExpressibleByArgument {}
