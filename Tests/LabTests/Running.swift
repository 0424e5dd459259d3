import Host
import TestSupport
import Testing

@testable import Lab

/// Runs the experiment `name`, and checks what holds for the report of any.
func run(_ name: String) throws -> Report {
  let report = try #require(Experiment.named(name)).run(program: Kvmlite.path)
  #expect(isWellFormed(HTMLReport.text(report)))
  _ = try object(JSONReport.text(report))
  #expect(Set(report.facts.map(\.key)).count == report.facts.count)
  #expect(Set(report.questions.map(\.id)).count == report.questions.count)
  #expect(!report.questions.isEmpty)
  // Who is wrong is told where to look, and it's there.
  for question in report.questions {
    #expect(report.titles.contains { $0.hasPrefix(question.place) }, "\(question.id)")
  }
  // Its own answers, written down, are worth all points.
  let sheet = report.questions.map { "\($0.id): \($0.expected)" }.joined(separator: "\n")
  #expect(Grade(try AnswerSheet(sheet), report).isPerfect)
  return report
}

extension Report {
  /// Its headings and the captions of its tables.
  fileprivate var titles: [String] {
    blocks.compactMap { block in
      switch block {
      case .heading(let text): text
      case .table(let table): table.caption
      default: nil
      }
    }
  }

  /// The fact `key` as text.
  func string(_ key: String) throws -> String {
    guard case .text(let text)? = fact(key) else { throw MissingFact(key: key) }
    return text
  }

  /// The fact `key` as a number.
  func number(_ key: String) throws -> Int {
    guard case .number(let number)? = fact(key) else { throw MissingFact(key: key) }
    return number
  }

  /// The fact `key` as a yes or no.
  func flag(_ key: String) throws -> Bool {
    guard case .flag(let flag)? = fact(key) else { throw MissingFact(key: key) }
    return flag
  }
}

/// A report without a fact that a test is about.
struct MissingFact: Error { let key: String }

/// The kernel's exit counters are there since Linux 5.14: both hosts have them.
let emulatesRing0 = HostKVM.isPVM
