import Foundation
import TestSupport
import Testing

@testable import Lab

@Suite("The lab's experiment build", .needsKVM, .limited)
struct BuildTests {
  // This file is Tests/LabTests/BuildTests.swift.
  private static let place = URL(filePath: #filePath).deletingLastPathComponent()

  private let experiment: Experiment
  private let model: String

  init() throws {
    experiment = try #require(Experiment.named("build"))
    model = try String(
      contentsOf: Self.place.appending(path: "Programs/model.c"), encoding: .utf8)
  }

  private func grade(_ source: String, seed: UInt64? = nil) throws -> Grade {
    try #require(try experiment.grade(program: Array(source.utf8), seed: seed))
  }

  private func wrong(_ grade: Grade) -> [String] {
    grade.items.filter { !$0.isRight }.map(\.id)
  }

  @Test("tells why KVM_RUN returned for each guest")
  func report() throws {
    let report = try run("build")
    #expect(try report.number("exits/run") == 1)
    #expect(try report.number("exits/out") == 13)
    #expect(try report.number("exits/in") == 26)
    #expect(try report.number("exits/memory") == 1)
    #expect(try report.number("windows") == 2)
    #expect(try report.number("halts/window") == 2)
    #expect(report.fact("mmio_widths") == .list([.number(1), .number(2), .number(4)]))
    #expect(try report.number("most_in_one_read") == 12)
    // The two interrupts come between the marks, the third wakes the guest.
    let window = Array(try report.string("prints/window"))
    #expect(window.count == 7 && window[0] == "<" && window[3] == ">" && window[5] == "!")
    #expect(window[1] == window[4] && window[1] != window[2])
    #expect(try report.string("prints/out").count == 12)
  }

  @Test("gives a hypervisor that does all of it all points, with guests of any seed")
  func right() throws {
    for seed in 0..<UInt64(Trials.rounds(20)) {
      let grade = try grade(model, seed: seed)
      #expect(grade.isPerfect, "seed \(seed): \(GradeReport.text([grade], showsAnswers: true))")
      #expect(grade.possiblePoints == 11)
    }
    #expect(try grade(model).isPerfect)
  }

  @Test("gives the skeleton nothing, which can be compiled")
  func skeleton() throws {
    let root = Self.place.deletingLastPathComponent().deletingLastPathComponent()
    let grade = try grade(
      String(contentsOf: root.appending(path: "docs/labs/skeletons/build.c"), encoding: .utf8))
    #expect(grade.points == 0 && grade.items.count == 8)
    #expect(grade.items[0].seen?.hasPrefix("printed nothing (it says: KVM's version is 12") == true)
  }

  @Test(
    "gives what is no hypervisor nothing, and says why",
    arguments: Trials.cases([
      (#"int main(void) { puts("halt: ax=1234"); }"#, "printed 'halt: ax=1234\\n'"),
      ("int main(void) { for (;;) pause(); }", "did not end in \(HypervisorCheck.seconds) seconds"),
      ("int main(void) { fork(); for (;;); }", "did not end in \(HypervisorCheck.seconds) seconds"),
      ("int main(void) { if (fork()) return 0; for (;;) pause(); }", "printed nothing"),
      (#"int main(void) { for (;;) puts("and so on"); }"#, "printed too much"),
      ("int main(void) { *(volatile char *)0 = 0; }", "ended by SIGSEGV"),
      (#"int main(void) { puts("halt"); return 3; }"#, "ended with status 3"),
      (
        #"int main(void) { system("rm -f * 2>/dev/null"); puts("\033[2J\xff"); }"#,
        "printed nothing"
      ),
      (#"int main(void) { puts("\033[2J"); }"#, "printed '?[2J\\n'"),
    ]))
  func none(body: String, words: String) throws {
    let source = "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n" + body
    let grade = try grade(source)
    #expect(grade.points == 0 && grade.items.allSatisfy { !$0.isRight })
    #expect(grade.items[0].seen == words)
    for format in GradeReport.Format.allCases {
      let text = GradeReport.text([grade], format)
      #expect(!text.unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" })
    }
  }

  @Test("ends what the program has started")
  func processes() throws {
    let pipe = Pipe()
    // Who holds the pipe open still runs; the program gets it by its path.
    let path =
      "/proc/\(ProcessInfo.processInfo.processIdentifier)/fd/"
      + "\(pipe.fileHandleForWriting.fileDescriptor)"
    let source = """
      #include <fcntl.h>
      #include <stdio.h>
      #include <unistd.h>
      int main(void) {
        if (open("\(path)", O_WRONLY) < 0) return 4;
        if (fork()) return 0;
        for (;;) pause();
      }
      """
    #expect(try grade(source).items[0].seen == "printed nothing")
    try pipe.fileHandleForWriting.close()
    #expect(try pipe.fileHandleForReading.readToEnd() == nil)
  }

  @Test("says what the compiler says of a program that can't be compiled")
  func notCompiled() throws {
    let grade = try grade("int main(void) {\n  return nothing;\n}\n")
    #expect(grade.points == 0)
    #expect(
      grade.items[0].seen?.hasPrefix("vmm.c:2:") == true
        && grade.items[0].seen?.contains("nothing") == true, "\(grade.items[0].seen ?? "")")
    #expect(grade.items[1].seen == "doesn't compile")
  }

  @Test(
    "finds which step is wrong, and leaves the others their points",
    arguments: Trials.cases([
      ("i < run->io.count", "i < 1", ["2-string"]),
      ("sum += value;", "sum = value;", ["3-mmio"]),
      ("run->mmio.len < 4 ? run->mmio.len : 4);\n    sum", "4);\n    sum", ["3-mmio"]),
      ("RAM = 640 << 10", "RAM = 64 << 10", ["3-memory"]),
      ("if (first != last) break;", "", ["4-window"]),
      ("run->request_interrupt_window = first != last;", "", ["4-window"]),
      ("first != last && run->ready_for_interrupt_injection", "0", ["4-interrupt", "4-window"]),
      ("ax=%04x", "ax=%x!", ["all"]),
    ]))
  func partly(right: String, wrong: String, ids: [String]) throws {
    let source = model.replacing(right, with: wrong)
    #expect(source != model)
    let grade = try grade(source)
    #expect(
      self.wrong(grade) == (ids == ["all"] ? grade.items.map(\.id) : ids),
      "\(GradeReport.text([grade], showsAnswers: true))")
  }

  @Test("is graded as JSON, too")
  func json() throws {
    let grade = try grade("no C at all")
    let text = GradeReport.text([grade], .json)
    let array = try #require(
      JSONSerialization.jsonObject(with: Data(text.utf8)) as? [[String: Any]])
    #expect(array.first?["lab"] as? String == "build")
    #expect(array.first?["points"] as? Int == 0 && array.first?["possible_points"] as? Int == 11)
    #expect((array.first?["items"] as? [Any])?.count == 9)
  }
}
