import Foundation
import TestSupport
import Testing

@testable import Lab

@Suite("The sheets of docs/labs", .limited)
struct SheetTests {
  // This file is Tests/LabTests/SheetTests.swift.
  private let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  @Test("are there for each experiment, with all parts, and in the table of lectures")
  func sheets() throws {
    let index = try text("docs/labs/README.md")
    for experiment in Experiment.all {
      let sheet = try text("docs/labs/\(experiment.name).md")
      #expect(sheet.hasPrefix("# \(experiment.name): "), "\(experiment.name)")
      let parts = sheet.split(separator: "\n").filter { $0.hasPrefix("## ") }
      #expect(
        parts == [
          "## The idea", "## Predict", "## Run", "## Explain", "## Exercises", "## Further reading",
        ], "\(experiment.name)")
      #expect(sheet.contains("kvmlite lab \(experiment.name)"))
      #expect(index.contains("| [\(experiment.name)](\(experiment.name).md) |"))
    }
  }

  @Test(
    "have skeletons that are assembled as the sheet says and run, and are not the solution yet",
    .needsKVM, arguments: Experiment.all.filter { $0.exercise != nil }.map(\.name))
  func skeletons(name: String) throws {
    let experiment = try #require(Experiment.named(name))
    let image = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).bin")
    defer { try? FileManager.default.removeItem(at: image) }
    let script = try ChildProcess(
      root.appending(path: "scripts/guest").path,
      [root.appending(path: "docs/labs/skeletons/\(name).S").path, "-o", image.path])
    #expect(try script.waitForEnd() == .exited(0))
    let grade = try #require(try experiment.grade(guest: Array(Data(contentsOf: image))))
    #expect(!grade.isPerfect)
    #expect(grade.items.first { $0.id == "end" }?.seen == "KVM_EXIT_HLT")
  }
}
