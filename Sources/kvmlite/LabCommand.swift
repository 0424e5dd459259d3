import ArgumentParser
import Doctor
import Host
import Lab
import Machine

/// `kvmlite lab`: the course's experiments.
struct LabCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lab", abstract: "Run an experiment of the virtualization course, or list them.",
    discussion: """
      docs/labs has a sheet for each. Exit status: 0, or 1 when not all that was checked is right; 64 \
      wrong options, 65 malformed answers, 66 unreadable ones, 69 or 77 no usable KVM, 71 the host \
      failed.
      """)

  @Argument(help: "The experiment's name. (default: list them)")
  var name: String?

  @Flag(help: "Print what was found as JSON.")
  var json = false

  @Option(help: ArgumentHelp("Write the report as a page with pictures.", valueName: "file"))
  var html: String?

  @Flag(help: "Show times where the processor is made of software, too, marked as such.")
  var times = false

  @Flag(help: "Print an empty sheet of answers to fill in.")
  var sheet = false

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp(
      "Grade the answers in these files, all against one run.", valueName: "answers"))
  var check: [String] = []

  @Option(
    help: ArgumentHelp(
      "Set the predictions in this file, a sheet made before the run, beside what comes.",
      valueName: "answers"))
  var predict: String?

  @Option(
    help: ArgumentHelp(
      "Run it with this student's own numbers; sheets say whose they are about.",
      valueName: "student"))
  var seed: String?

  @Option(
    help: ArgumentHelp("Run a variant, such as pages=128; repeatable.", valueName: "name=value"))
  var vary: [String] = []

  @Flag(help: "Say in a grade what would have been right.")
  var showAnswers = false

  @Option(
    help: ArgumentHelp("Grade a guest that was written for the exercise.", valueName: "image"))
  var guest: String?

  @Option(
    help: ArgumentHelp(
      "Compile, run and grade a C program that was written for the exercise.", valueName: "file"))
  var program: String?

  @Option(
    help: ArgumentHelp("How to print a grade: text, tap, junit or json. (default: text)"))
  var format: GradeReport.Format?

  func validate() throws {
    guard name == nil else { return try requireOneOutput() }
    if json || sheet || html != nil || !check.isEmpty || work != nil || predict != nil
      || seed != nil || !vary.isEmpty
    {
      throw ValidationError("which experiment? See: kvmlite lab")
    }
  }

  /// What a student wrote to be run.
  private var work: String? { guest ?? program }

  /// Refuses options of which all but one would be passed over.
  private func requireOneOutput() throws {
    let asked = [json, sheet, !check.isEmpty, guest != nil, program != nil].count { $0 }
    guard asked <= 1 else {
      throw ValidationError(
        "--json, --sheet, --check, --guest and --program: give only one of them")
    }
    if work != nil && (seed != nil || !vary.isEmpty) {
      throw ValidationError("--seed and --vary are for a run, and --guest and --program have none")
    }
    if !check.isEmpty && !vary.isEmpty {
      throw ValidationError("--check grades a run that isn't varied: leave out --vary")
    }
    if predict != nil && (sheet || work != nil) {
      throw ValidationError("--predict is for a run: --sheet, --guest and --program show none")
    }
    if predict != nil && check.count > 1 {
      throw ValidationError("--predict is one student's: give one sheet to --check with it")
    }
    if work != nil && html != nil {
      throw ValidationError(
        "--html is for an experiment's report, and --guest and --program run none")
    }
    if (format != nil || showAnswers) && check.isEmpty && work == nil {
      throw ValidationError(
        "--format and --show-answers are for a grade: give --check, --guest or --program with them")
    }
  }

  func run() throws {
    guard let name else { return try Message.output(list) }
    guard let experiment = Experiment.named(name) else {
      let hint = Spelling.hint(name, among: Experiment.all.map(\.name))
      Message.error("there is no experiment '\(name)'\(hint); see: kvmlite lab")
      throw ExitCode(64)
    }
    // Whoever ends an experiment wants nothing of it to stay.
    try? Signal.beforeEnding(by: [.interrupt, .quit, .terminate, .hangUp]) {
      Workshop.endAll()
      TemporaryDirectory.removeAll()
    }
    if let guest {
      return try grade(guest, "guest", experiment) { bytes throws(LabError) in
        try experiment.grade(guest: bytes)
      }
    }
    if let program {
      return try grade(program, "program", experiment) { bytes throws(LabError) in
        try experiment.grade(program: bytes)
      }
    }
    let sheets = try check.map(readSheet)
    let prediction = try predict.map(readSheet)
    guard sheets.isEmpty else { return try grade(sheets, experiment, prediction) }
    var report = try run(experiment, seed: seed ?? prediction?.seed)
    if let prediction { report.compare(with: prediction) }
    if let html { try writePage(HTMLReport.text(report), to: html) }
    if json { return try Message.output(JSONReport.text(report)) }
    if sheet { return try Message.output(AnswerSheet.blank(for: report)) }
    let isColoured = FileDescriptor(borrowing: 1).isTerminal
    try Message.output(TextReport.text(report, isColoured: isColoured))
  }

  private func run(_ experiment: Experiment, seed: String?) throws -> Report {
    let changes = try vary.map(change)
    let variation: Variation
    do {
      variation = try Variation(
        of: experiment, student: seed.map { Markup.printable($0) }, changes: changes)
    } catch {
      let hint = error.name.map { Spelling.hint($0, among: experiment.variables.map(\.name)) }
      Message.error("\(error)\(hint ?? "")")
      throw ExitCode(64)
    }
    do {
      return try experiment.run(times: .read(wasAsked: times), variation: variation)
    } catch { throw failure(error) }
  }

  private func change(_ text: String) throws -> (name: String, value: Int) {
    let parts = text.split(separator: "=", omittingEmptySubsequences: false)
    guard parts.count == 2, let value = Int(parts[1]) else {
      Message.error("--vary '\(text)': wanted a name and a number, such as pages=128")
      throw ExitCode(64)
    }
    return (String(parts[0]), value)
  }

  /// Grades sheets, each against the run of its seed; there is one run for each.
  private func grade(
    _ sheets: [AnswerSheet], _ experiment: Experiment, _ prediction: AnswerSheet?
  ) throws {
    var reports: [String?: Report] = [:]
    var grades: [Grade] = []
    for sheet in sheets {
      let seed = sheet.seed ?? seed
      var report: Report
      if let known = reports[seed] {
        report = known
      } else {
        report = try run(experiment, seed: seed)
        do { try experiment.answerTransfer(of: &report) } catch { throw failure(error) }
        reports[seed] = report
        if let html { try writePage(HTMLReport.text(report), to: html) }
      }
      grades.append(Grade(sheet, report, prediction: prediction))
    }
    try output(grades)
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

  private func grade(
    _ path: String, _ what: String, _ experiment: Experiment,
    _ body: ([UInt8]) throws(LabError) -> Grade?
  ) throws {
    let bytes = try read(path, "a \(what) of the lab")
    let grade: Grade?
    do { grade = try body(bytes) } catch { throw failure(error) }
    guard let grade else {
      Message.error("'\(experiment.name)' has no exercise with a \(what)")
      throw ExitCode(64)
    }
    try output([grade])
  }

  private func output(_ grades: [Grade]) throws {
    try Message.output(GradeReport.text(grades, format ?? .text, showsAnswers: showAnswers))
    throw ExitCode(grades.allSatisfy(\.isPerfect) ? 0 : 1)
  }

  private func read(_ path: String, _ what: String) throws -> [UInt8] {
    do throws(Failure) {
      return try InputFile.contents(of: path, limit: 1 << 20, hint: what)
    } catch {
      Message.error(error.message)
      throw ExitCode(error.status)
    }
  }

  private func readSheet(_ path: String) throws -> AnswerSheet {
    let bytes = try read(path, "a sheet of answers")
    // Of several each has a name.
    let name = path.split(separator: "/").last.map { Markup.printable($0) }
    do {
      return try AnswerSheet(
        String(decoding: bytes, as: UTF8.self), owner: check.count > 1 ? name : nil)
    } catch {
      Message.error("\(path): \(error)")
      throw ExitCode(65)
    }
  }

  private func failure(_ error: LabError) -> ExitCode {
    TemporaryDirectory.waitForEnd()
    if case .kvm(let error) = error {
      let trouble = KVMTrouble(error)
      Message.error(trouble.description)
      return ExitCode(trouble.exitStatus)
    }
    Message.error("the experiment came to nothing: \(error)")
    if case .host = error { return ExitCode(71) }
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
}

extension GradeReport.Format: ExpressibleByArgument {}
