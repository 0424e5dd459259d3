import TestSupport
import Testing

@testable import Lab

@Suite("A variation of an experiment", .limited)
struct VariationTests {
  private let shadow: Experiment

  init() throws { shadow = try #require(Experiment.named("shadow")) }

  @Test("is the same for a student each time, and another for another")
  func seeds() throws {
    func values(_ student: String?) throws -> [String: Int] {
      try Variation(of: shadow, student: student).values
    }
    #expect(try values(nil) == ["pages": 64, "steps": 600])
    #expect(try values("ada") == values("ada"))
    let all = Set(try ["ada", "bob", "eve", "dan", "fay"].map(values))
    #expect(all.count == 5)
    for values in all {
      for variable in shadow.variables {
        #expect(variable.allows(values[variable.name] ?? 0), "\(variable.name)")
      }
    }
    var ada = try Variation(of: shadow, student: "ada").random(7)
    var usual = try Variation(of: shadow, student: nil).random(7)
    #expect(ada.next() != usual.next())
  }

  @Test("takes what is asked for, and refuses what there isn't or what can't be")
  func changes() throws {
    let variation = try Variation(of: shadow, student: "ada", changes: [("pages", 128)])
    #expect(variation["pages"] == 128)
    for change in [("page", 1), ("pages", 1000), ("pages", -1)] {
      #expect(throws: Variation.Unknown.self) {
        try Variation(of: shadow, student: nil, changes: [change])
      }
    }
    let cow = try #require(Experiment.named("cow"))
    #expect(throws: Variation.Unknown.self) {
      try Variation(of: cow, student: nil, changes: [("cluster", 48)])
    }
  }

  @Test("chooses some of many, those that must be among them")
  func choice() throws {
    let variation = try Variation(of: shadow, student: "ada")
    let chosen = variation.choice(5, of: Array(0..<20)) { $0 == 7 || $0 == 13 }
    #expect(chosen.count == 5 && chosen == chosen.sorted())
    #expect(chosen.contains(7) && chosen.contains(13))
    #expect(variation.choice(20, of: Array(0..<20)) { _ in false } == Array(0..<20))
  }

  @Test(
    "answers the transfer question, which is worth a third", .needsKVM,
    .serialized, arguments: Trials.cases(Experiment.all.map(\.name)))
  func transfer(name: String) throws {
    let experiment = try #require(Experiment.named(name))
    let variation = try Variation(of: experiment, student: "ada")
    var report = try experiment.run(
      program: Kvmlite.path, times: HostTimes(maker: "a test"), variation: variation)
    let open = try #require(report.transfer)
    #expect(open.value != variation[open.variable])
    #expect(TextReport.text(report).contains("\n\(open.id) ("))
    #expect(AnswerSheet.blank(for: report).contains("\nseed: ada\n"))
    try experiment.answerTransfer(of: &report, program: Kvmlite.path)
    let question = try #require(report.questions.last)
    #expect(question.id == open.id && report.transfer == nil)
    #expect(question.answer == .number(expected(name, open.value, variation)))
    let points = report.questions.reduce(0) { $0 + $1.points }
    #expect(abs(points - 3 * question.points) <= 2)
  }

  /// What somebody who has understood the experiment works out.
  private func expected(_ name: String, _ value: Int, _ variation: Variation) -> Int {
    switch name {
    case "build": value + 1
    case "risc": value * 3
    case "multiplex": 3 * value + 2
    case "translation": value + 2
    case "critical": emulatesRing0 ? 0 : 1
    case "two-stage": 0x10_0000 + 8 * value
    case "shadow": 1 + value / 100
    case "tlb": (value << 20) >> 12
    case "slots": variation["width"] + (value - 1) * (variation["width"] + 1)
    case "io-models": 6 + 3 * value
    case "split": value * 512 + 1
    case "stack": variation["sector"] * 512 / (value << 10)
    case "cow": value << 10
    default: value
    }
  }
}
