import Doctor
import Machine

/// What an experiment found, in the order in which it is told.
package struct Report: Sendable {
  /// A part of the report.
  package enum Block: Sendable {
    /// A heading.
    case heading(String)
    /// A paragraph.
    case text(String)
    /// A table.
    case table(Table)
    /// A picture, which only HTML shows.
    case picture(Picture)
  }

  /// A finding for machines, and for questions.
  package enum Fact: Sendable, Equatable {
    /// Words.
    case text(String)
    /// A whole number.
    case number(Int)
    /// Yes or no.
    case flag(Bool)
    /// Several.
    case list([Fact])
  }

  /// The experiment's name.
  package let name: String
  /// Its title.
  package let title: String
  /// What served /dev/kvm; nil where the kernel doesn't say.
  package let backEnd: BackEnd?
  /// Whether times of this host mean anything, and are shown.
  package let times: HostTimes
  /// The parts, in order.
  package private(set) var blocks: [Block] = []
  /// The findings, in order; no two have one key.
  package private(set) var facts: [(key: String, value: Fact)] = []
  /// How this run differs from the usual one.
  package let variation: Variation
  /// The question that a variant answers; nil once it did, or without one.
  package private(set) var transfer: Transfer.Open?
  /// The questions, with the answers that this run gave.
  package private(set) var questions: [Question] = []

  init(
    _ experiment: Experiment, backEnd: BackEnd?, times: HostTimes = HostTimes(maker: nil),
    variation: Variation = .none
  ) {
    self.variation = variation
    name = experiment.name
    title = experiment.title
    self.backEnd = backEnd
    self.times = times
  }

  /// The finding called `key`.
  package func fact(_ key: String) -> Fact? { facts.first { $0.key == key }?.value }

  /// Whether the back end emulates ring 0 in software.
  var emulatesRing0: Bool { backEnd?.name == "kvm_pvm" }

  /// What ran the guest, with what that changes: a sentence a line.
  package var backEndLines: [String] {
    guard let backEnd else {
      return ["unknown: the kernel shows no module of KVM's in /sys/module"]
        + [times.line].compactMap { $0 }
    }
    let notes =
      backEnd.notes.isEmpty
      ? ["Ring 0 of the guest runs on the processor: its traps are the hardware's."] : backEnd.notes
    return ["\(backEnd.name): \(backEnd.summary)"] + notes + [times.line].compactMap { $0 }
  }

  mutating func leaveOpen(_ question: Transfer.Open) {
    heading("Transfer")
    text(
      "The number that `\(question.id)` asks for stands in no table: work it out. A grade runs the "
        + "variant. Having answered, you may, too: --vary \(question.variable)=\(question.value), "
        + "where `\(question.fact)` is among the facts of --json.")
    transfer = question
  }

  mutating func answer(_ question: Transfer.Open, _ answer: Question.Answer) {
    ask(question.id, question.text, answer, points: question.points, at: "Transfer")
    transfer = nil
  }

  /// All that is asked, with what it's worth and the form of the answer.
  var allQuestions: [(id: String, text: String, points: Int, form: String)] {
    questions.map { ($0.id, $0.text, $0.points, $0.form) }
      + [transfer].compactMap { $0 }.map { ($0.id, $0.text, $0.points, "a number") }
  }

  /// Sets `prediction`, which was made before the run, beside what came of it.
  package mutating func compare(with prediction: AnswerSheet) {
    heading("Your prediction")
    var table = Table("Predicted, and what came", ["question", "predicted", "came", ""])
    var different: [String] = []
    for question in questions {
      let answer = prediction.answers[question.id] ?? ""
      let isRight = question.accepts(answer)
      if !isRight { different.append(question.id) }
      table.add([
        question.id, answer.isEmpty ? "(nothing)" : answer, question.expected,
        isRight ? "as predicted" : "differs",
      ])
    }
    self.table(table)
    guard let first = different.first else { return }
    text(
      "Explain each difference in the sheet of answers, with a line such as `\(Grade.why)\(first): ...`, "
        + "and have it graded together with the prediction (--predict and --check).")
  }

  mutating func heading(_ text: String) { blocks.append(.heading(text)) }
  mutating func text(_ text: String) { blocks.append(.text(text)) }
  mutating func table(_ table: Table) { blocks.append(.table(table)) }
  mutating func picture(_ picture: Picture) { blocks.append(.picture(picture)) }
  mutating func note(_ key: String, _ value: Fact) { facts.append((key, value)) }
  mutating func note(_ key: String, _ value: Int) { facts.append((key, .number(value))) }
  mutating func note(_ key: String, _ value: String) { facts.append((key, .text(value))) }
  mutating func note(_ key: String, _ value: Bool) { facts.append((key, .flag(value))) }
  /// Asks what the report tells at `place`: a table's caption, or the words before its colon.
  mutating func ask(
    _ id: String, _ text: String, _ answer: Question.Answer, points: Int = 1, at place: String
  ) {
    questions.append(Question(id: id, text: text, answer: answer, points: points, place: place))
  }
}
