import Foundation
import TestSupport
import Testing

@testable import Lab

@Suite(
  "The commands of docs/labs", .needsKVM, .limited,
  .disabled(if: Trials.areFew, "a slow host runs each experiment once, by its own test"))
struct SheetCommandTests {
  // This file is Tests/LabTests/SheetCommandTests.swift.
  private static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// What isn't run here: it builds, fetches, waits for a person, or needs another host.
  private static let others = [
    "swift build", "scripts/build-release", "scripts/linux-guest", "/tmp/d.socket", "guest:echo",
    "--on vt-x", "--initrd", "nokaslr",
  ]

  /// The lines of code of a sheet, without comments.
  private static func commands(_ name: String) throws -> [String] {
    let text = try String(contentsOf: root.appending(path: "docs/labs/\(name).md"), encoding: .utf8)
    return text.split(separator: "\n").filter { $0.hasPrefix("    ") }.map { line in
      let words = line.trimmingCharacters(in: .whitespaces)
      return words.ranges(of: "  #").first.map { String(words[..<$0.lowerBound]) } ?? words
    }
  }

  @Test(
    "run, in the order of the sheet, as it says",
    arguments: ["README"] + Experiment.all.map(\.name))
  func run(name: String) throws {
    let scratch = FileManager.default.temporaryDirectory.appending(path: "kvmlite-sheet-\(UUID())")
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: scratch) }
    for folder in ["docs", "scripts", "guest-asm"] {
      try FileManager.default.createSymbolicLink(
        at: scratch.appending(path: folder), withDestinationURL: Self.root.appending(path: folder))
    }
    let place = URL(filePath: Kvmlite.path).deletingLastPathComponent().path
    var count = 0
    for command in try Self.commands(name)
    where !Self.others.contains(where: { command.contains($0) }) {
      if command.hasPrefix("scripts/host ") {
        // The same here, which it says to run there.
        let inner = try #require(command.ranges(of: " -- .build/debug/").first, "\(command)")
        let here = String(command[inner.upperBound...])
        #expect(try Self.commands(name).contains { $0.hasPrefix(here) }, "\(command)")
        continue
      }
      // Nothing is fetched.
      let emulators = "scripts/risc -- "
      let isHere = FileManager.default.fileExists(
        atPath: Self.root.appending(path: ".cache/risc/bin").path)
      let command =
        command.hasPrefix(emulators) && !isHere
        ? String(command.dropFirst(emulators.count)) : command
      count += 1
      let shell = try ChildProcess(
        "/bin/sh", ["-c", "cd '\(scratch.path)' && PATH='\(place)':\"$PATH\" && \(command)"])
      let end = try shell.waitForEnd()
      // A grade of an empty sheet, or of a skeleton, is no failure of the command's.
      let isGrade = ["--check", "--guest", "--program"].contains { command.contains($0) }
      #expect(end == .exited(isGrade ? 1 : 0), "\(command): \(shell.errorText)")
    }
    #expect(count > 0)
  }

  @Test("the table of a lecture's statements names experiments that there are, and each of them")
  func statements() throws {
    let text = try String(
      contentsOf: Self.root.appending(path: "docs/labs/README.md"), encoding: .utf8)
    let start = try #require(text.range(of: "## What a lecture says"))
    let end = try #require(text.range(of: "Some sheets have an exercise"))
    let named = text[start.upperBound..<end.lowerBound].matches(of: /`kvmlite lab ([a-z-]+)`/)
      .map { String($0.output.1) }
    #expect(named.count > 20)
    for name in named { #expect(Experiment.named(name) != nil, "\(name)") }
    for experiment in Experiment.all {
      #expect(named.contains(experiment.name), "\(experiment.name)")
      #expect(text.contains("](\(experiment.name).md) |"), "\(experiment.name)")
    }
  }
}
