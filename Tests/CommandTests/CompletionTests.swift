import Foundation
import TestSupport
import Testing

@Suite("A shell may put at the end of a command line", .limited, .sameOnEachHost)
struct CompletionTests {
  private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "scripts/completions")
    .path

  private func words(_ line: [String]) throws -> [String] {
    let result = try Kvmlite.end(of: Kvmlite.start(["__complete"] + line))
    #expect(result.end == .exited(0) && result.errors.isEmpty)
    return result.output.split(separator: "\n").map { String($0.prefix { $0 != "\t" }) }
  }

  @Test(
    "commands, options and their values, guests, experiments and files",
    arguments: [
      (["do"], "doctor"), (["guest:ti"], "guest:tick"), (["run", "guest:ti"], "guest:tick"),
      (["config", "-c", "2", "guest:ti"], "guest:tick"), (["guests", "export", "ti"], "tick"),
      (["lab", "mo"], "modes"), (["disk", "cr"], "create"), (["help", "disk", "cr"], "create"),
      (["--mo"], "--mode"), (["--mode", "re"], "real"), (["--mode=re"], "--mode=real"),
      (["-m", "1G", "--cpu", "ba"], "baseline"), (["--device", "r"], "rng"),
      (["disk", "create", "--form"], "--format"), (["disk", "create", "--format", "q"], "qcow2"),
      (["--stats", "guest:ti"], "guest:tick"), (["--trace=i"], "--trace=irq"),
      ([""], ":files"), (["--disk", ""], ":files"), (["disk", "info", ""], ":files"),
    ] as [([String], String)])
  func some(line: [String], word: String) throws { #expect(try words(line).contains(word)) }

  @Test(
    "nothing that can't be",
    arguments: [
      ["--timeout", ""], ["guest:tick", "guest:"], ["lab", "modes", "m"], ["help", "x"],
    ])
  func none(line: [String]) throws { #expect(try words(line).isEmpty) }

  @Test(
    "and the manual page has each command and option",
    .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/python3"), "needs python3"))
  func manual() throws {
    let script = Self.folder + "/../man-page"
    let process = try ChildProcess("python3", [script, Kvmlite.path])
    #expect(try process.waitForEnd() == .exited(0), "\(process.errorText)")
    let page = process.outputText.replacing("\\-", with: "-")
    for word in [
      ".SS kvmlite run", ".SS kvmlite disk create", ".SS kvmlite lab", "\\fB--initrd\\fR",
      "\\fB--trace\\fR[=\\fIKINDS\\fR]", "\\fB-m\\fR, \\fB--memory\\fR \\fIMEMORY\\fR",
    ] {
      #expect(page.contains(word))
    }
  }

  @Test(
    "in bash, which cuts words at colons",
    arguments: [("guest:ti", "tick"), ("--mode=re", "real"), ("disk cr", "create")])
  func bash(word: String, rest: String) throws {
    let script = """
      source "$1/kvmlite.bash"; PATH=${0%/*}:$PATH
      COMP_LINE="kvmlite $2" COMP_POINT=99
      _kvmlite; printf '%s\\n' "${COMPREPLY[@]}"
      """
    let process = try ChildProcess("bash", ["-c", script, Kvmlite.path, Self.folder, word])
    #expect(try process.waitForEnd() == .exited(0))
    #expect(process.outputText.split(separator: "\n").contains(Substring(rest)))
  }
}
