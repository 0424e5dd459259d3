import Foundation
import FoundationXML
import TestSupport
import Testing

@testable import Lab

/// Whether XML is well-formed.
func isWellFormed(_ xml: String) -> Bool { XMLParser(data: Data(xml.utf8)).parse() }

/// What JSON says.
func object(_ json: String) throws -> [String: Any] {
  try #require(JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
}

@Suite("A report", .limited)
struct ReportTests {
  private func makeReport() -> Report {
    let experiment = Experiment("sample", "a <sample> & more", "none") { _ in }
    var report = Report(experiment, backEnd: nil)
    report.heading("Heading <1>")
    report.text("One & two.")
    var table = Table("A table", ["name", "#count"])
    table.add(["a", "5"])
    table.add(["long name", "1234"])
    table.note("n/a: nobody knows <why>.")
    report.table(table)
    var picture = Picture("A \"picture\"", width: 100, height: 50)
    picture.label(1, 2, "a < b & c")
    picture.rectangle(1, 2, 3.25, 4, fill: "#fff", tip: "<tip>")
    picture.arrow(0, 0, 10, 10)
    report.picture(picture)
    report.note("number", 5)
    report.note("list", .list([.text("x\"y"), .flag(true)]))
    report.ask("count", "How many?", .number(42), points: 2, at: "A table")
    report.ask("names", "Which?", .set(["HLT", "MOV to CR0"]), at: "A table")
    report.ask("so", "Is it so?", .flag(true), at: "Heading")
    return report
  }

  @Test("has tables whose columns align, numbers to the right")
  func columns() {
    let text = TextReport.text(makeReport())
    #expect(text.contains("  name       count\n  ---------  -----\n  a              5\n"))
    #expect(text.contains("  long name   1234\n"))
    #expect(!text.contains(" \n"))
  }

  @Test("says when the back end is unknown")
  func backEnd() { #expect(TextReport.text(makeReport()).contains("back end  unknown")) }

  @Test("is well-formed as a page, with its pictures inside and no script")
  func html() {
    let page = HTMLReport.text(makeReport())
    #expect(page.hasPrefix("<!DOCTYPE html>"))
    #expect(isWellFormed(page))
    #expect(page.contains("<svg") && page.contains("a &lt; b &amp; c"))
    #expect(!page.contains("<script") && !page.contains("src=") && !page.contains("href="))
  }

  @Test("is an object as JSON, without the answers")
  func json() throws {
    let json = try object(JSONReport.text(makeReport()))
    #expect(json["lab"] as? String == "sample")
    #expect((json["facts"] as? [String: Any])?["number"] as? Int == 5)
    #expect((json["questions"] as? [Any])?.count == 3)
    #expect(!JSONReport.text(makeReport()).contains("42"))
  }

  @Test(
    "grades answers however they are spelled",
    arguments: [
      ("count: 42\nnames: mov to  CR0,  hlt\nso: Yes", 4),
      ("count: 0x2A\nnames: HLT\nso: no", 2),
      ("count: 41\nso: y", 1), ("names: none", 0), ("", 0), ("# nothing\n\n", 0),
    ])
  func grading(sheet: String, points: Int) throws {
    let grade = Grade(try AnswerSheet(sheet), makeReport())
    #expect(grade.points == points)
    #expect(grade.possiblePoints == 4)
  }

  @Test("grades what is written, whatever an editor or an enemy has put around it")
  func oddBytes() throws {
    let sheet = try AnswerSheet(
      "\u{FEFF}# a comment\r\n\u{FEFF}count:\t4\u{AD}2\r\nso: \u{1B}[2Jyes")
    let grade = Grade(sheet, makeReport())
    #expect(grade.unknown.isEmpty)
    #expect(grade.items.first { $0.id == "count" }?.isRight == true)
    #expect(grade.items.first { $0.id == "so" }?.seen == "?[2Jyes")
    let unknown = Grade(try AnswerSheet("\u{9B}K<: 1"), makeReport())
    for format in GradeReport.Format.allCases {
      let text = GradeReport.text([unknown], format)
      #expect(text.contains("there is no question '?K"))
      #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" || $0 == "\u{9B}" })
    }
    #expect(isWellFormed(GradeReport.text([unknown], .junit)))
  }

  @Test("refuses a sheet that it can't read, by line")
  func malformed() {
    #expect(throws: AnswerSheet.Malformed.self) { try AnswerSheet("a: 1\nnonsense") }
    #expect(throws: AnswerSheet.Malformed.self) { try AnswerSheet("a: 1\na: 2") }
  }

  @Test("prints a sheet to fill in that is read again, without an answer")
  func blank() throws {
    let sheet = try AnswerSheet(AnswerSheet.blank(for: makeReport()))
    #expect(Set(sheet.answers.keys) == ["count", "names", "so"])
    #expect(sheet.student == nil)
    #expect(Grade(sheet, makeReport()).points == 0)
    #expect(Grade(sheet, makeReport()).items.allSatisfy { $0.seen == nil })
  }

  @Test(
    "takes answers as reports print them",
    arguments: [
      ("exception", "#GP(0)", true), ("exception", "#gp", true), ("exception", "GP", true),
      ("exception", "#PF", false), ("table", "page table", true), ("table", "PT", true),
      ("address", "0x345678", true), ("address", "3 430 008", true), ("once", "1.00", true),
      ("once", "1.01", false), ("once", "1.", false), ("once", "one", false),
    ])
  func printed(id: String, answer: String, isRight: Bool) throws {
    var report = Report(Experiment("sample", "a sample", "none") { _ in }, backEnd: nil)
    report.ask("exception", "Which?", .word("#GP"), at: "A table")
    report.ask("table", "Which?", .words(["PT", "page table"]), at: "A table")
    report.ask("address", "Where?", .number(0x345678), at: "A table")
    report.ask("once", "How often?", .number(1), at: "A table")
    let grade = Grade(try AnswerSheet("\(id): \(answer)"), report)
    #expect(grade.items.first { $0.id == id }?.isRight == isRight)
  }

  @Test("says where to look, and the right answer only if it is asked to")
  func hidden() throws {
    let grade = Grade(try AnswerSheet("count: 7"), makeReport())
    for format in GradeReport.Format.allCases {
      let text = GradeReport.text([grade], format)
      #expect(!text.contains("42") && !text.contains("MOV to CR0"))
      #expect(text.contains("A table"))
      #expect(GradeReport.text([grade], format, showsAnswers: true).contains("42"))
    }
  }

  @Test("grades many sheets by name in each format")
  func many() throws {
    let right = try AnswerSheet("student: Ada\ncount: 42\nnames: hlt, mov to cr0\nso: yes")
    let grades = [
      Grade(right, makeReport()), Grade(try AnswerSheet("so: no", owner: "b<ob"), makeReport()),
    ]
    let text = GradeReport.text(grades)
    #expect(
      text.contains("Ada: sample: 4 of 4 points") && text.contains("\n  b<ob          0   4\n"))
    let tap = GradeReport.text(grades, .tap)
    #expect(tap.contains("\n1..6\nok 1 - Ada: sample count\n"))
    #expect(tap.contains("not ok 6 - b<ob: sample so\n"))
    let junit = GradeReport.text(grades, .junit)
    #expect(isWellFormed(junit))
    #expect(junit.contains("<testsuite name=\"kvmlite lab b&lt;ob: sample\""))
  }

  @Test("sets a prediction beside what came, and wants each difference explained")
  func predictions() throws {
    let prediction = try AnswerSheet("count: 41\nnames: none\nso: yes")
    var report = makeReport()
    report.compare(with: prediction)
    let text = TextReport.text(report)
    #expect(text.contains("  count     41         42               differs\n"))
    #expect(text.contains("  so        yes        yes              as predicted\n"))
    func points(_ more: String) throws -> (Int?, String?) {
      let grade = Grade(try AnswerSheet("count: 42\n" + more), report, prediction: prediction)
      #expect(grade.unknown.isEmpty && grade.possiblePoints == 6)
      let item = grade.items.first { $0.id == "prediction" }
      return (item.map { $0.isRight ? $0.points : 0 }, item?.seen)
    }
    #expect(try points("") == (0, "count, names"))
    #expect(try points("why-count: I forgot the very first one\nwhy-names: dunno") == (0, "names"))
    #expect(
      try points("why-count: I forgot the very first one\nwhy-names: HLT traps in ring 3 too")
        == (2, "none without"))
  }

  @Test("gives a guest nothing for ending in order if it did none of the work")
  func idle() {
    let end = Grade.Item(
      id: "end", text: "", expected: "HLT", seen: "HLT", isRight: true, points: 1, isWork: false)
    let idle = Grade(name: "x", items: [.counted("work", "", 10, 0), end])
    #expect(idle.points == 0)
    #expect(Grade(name: "x", items: [.counted("work", "", 10, 10), end]).points == 2)
  }

  @Test("writes grades as text, TAP and JUnit, with what was expected and seen")
  func formats() throws {
    let grade = Grade(try AnswerSheet("count: <7>\nso: yes\nwhat: 1"), makeReport())
    #expect(!grade.isPerfect)
    let text = GradeReport.text([grade])
    #expect(text.contains("1 of 4 points") && text.contains("there is no question 'what'"))
    let tap = GradeReport.text([grade], .tap, showsAnswers: true)
    #expect(tap.hasPrefix("TAP version 13\n1..3\nnot ok 1 - sample count\n"))
    #expect(tap.contains("  expected: \"42\"\n  seen: \"<7>\"\n  look: \"A table\"\n"))
    #expect(tap.contains("ok 3 - sample so\n"))
    let junit = GradeReport.text([grade], .junit)
    #expect(isWellFormed(junit))
    #expect(junit.contains("tests=\"3\" failures=\"2\"") && junit.contains("seen &lt;7&gt;"))
  }

  @Test(
    "knows a processor made of software by its hypervisor's signature, or its firmware's vendor",
    arguments: [
      // "TCGTCGTCGTCG", and "KVMKVMKVM" in a machine whose firmware is called Bochs.
      (true, [0x5447_4354, 0x4354_4743, 0x4743_5447], "SeaBIOS", "QEMU's TCG"),
      (true, [0x4B4D_564B, 0x564B_4D56, 0x4D], "Bochs", nil),
      (false, [0, 0, 0], "The Bochs Project", "Bochs"), (false, [0, 0, 0], "Dell Inc.", nil),
    ] as [(Bool, [UInt32], String, String?)])
  func software(isVirtual: Bool, signature: [UInt32], vendor: String, maker: String?) {
    #expect(
      HostTimes.maker(isVirtual: isVirtual, signature: signature, vendors: [vendor]) == maker)
  }

  @Test("says at its head that times are left out, or that they are marked")
  func timesLine() {
    for (wasAsked, words) in [(false, "are left out"), (true, "are marked")] {
      let report = Report(
        Experiment("sample", "a sample", "none") { _ in }, backEnd: nil,
        times: HostTimes(maker: "Bochs", wasAsked: wasAsked))
      #expect(TextReport.text(report).contains(words))
    }
  }

  @Test("calls measurements spoiled that are far apart, and no others")
  func spoiled() {
    #expect(!Samples((0..<100).map { 1000 + UInt64($0) } + [1_000_000]).isSpoiled)
    #expect(Samples((0..<100).map { 1000 + 20 * UInt64($0) }).isSpoiled)
    #expect(Samples((0..<100).map { $0 < 80 ? 1000 : 9000 }).isSpoiled)
  }

  @Test("shows counts as bars, and none as a dot")
  func bars() { #expect(Samples.bars([0, 1, 4, 8]) == ".\u{2581}\u{2584}\u{2588}") }

  @Test("writes numbers as people read them")
  func numbers() {
    #expect(decimal(0.05, 1) == "0.1" && decimal(-1.25, 2) == "-1.25" && decimal(3, 0) == "3")
    #expect(decimal(-0.001, 1) == "0.0" && decimal(.infinity) == "?")
    #expect(grouped(1_234_567) == "1 234 567" && grouped(-12) == "-12" && grouped(123) == "123")
    #expect(hex(0x2A, 4) == "0x002a")
  }
}
