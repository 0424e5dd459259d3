import TestSupport
import Testing

@testable import Lab

@Suite("The lab's experiment multiplex", .needsKVM, .limited)
struct MultiplexTests {
  @Test("turns are equal while all wait; a liar and a death change nothing for the others")
  func usual() throws {
    let report = try run("multiplex")
    let rounds = [Int](repeating: 0, count: 4).flatMap { _ in 1...4 }
    let order = rounds + [Int](repeating: 1, count: 12)
    #expect(report.fact("order") == .list(order.map { .number($0) }))
    for machine in 1...4 { #expect(try report.number("early/\(machine)") == 4) }
    #expect(try report.number("last_place/2") == 14)
    #expect(try report.flag("base_same"))
    for machine in 1...2 {
      #expect(try report.string("fate/\(machine)") == "went on")
      #expect(try report.number("answered/\(machine)") == 4)
      #expect(try report.number("wrong_sectors/\(machine)") == 0)
    }
    #expect(try report.string("fate/3") == "died" && report.string("fate/4") == "lied")
    #expect(try report.number("answered/4") == 1)
    let words = try report.string("back_end_says")
    #expect(
      words.hasPrefix("machine 4: the guest's driver broke the disk") && words.contains("0x7"))
  }

  @Test("two to eight machines", arguments: Trials.cases([2, 3, 8]))
  func counts(machines: Int) throws {
    let experiment = try #require(Experiment.named("multiplex"))
    let variation = try Variation(
      of: experiment, student: "ada", changes: [("machines", machines)])
    let report = try experiment.run(program: Kvmlite.path, variation: variation)
    #expect(try report.number("offered/1") == variation["greed"])
    #expect(try report.number("last_place/\(machines)") == 4 * machines)
    #expect(try report.string("fate/\(machines)") == "lied")
    for machine in 1...max(1, machines - 2) {
      #expect(try report.string("fate/\(machine)") == "went on")
      #expect(try report.number("wrong_sectors/\(machine)") == 0)
    }
    #expect(try report.flag("base_same"))
  }
}
