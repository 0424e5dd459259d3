import Foundation
import TestSupport
import Testing

@testable import Lab

/// QEMU's emulators of other processors, as scripts/risc has fetched them; tests fetch nothing.
private enum Emulators {
  // This file is Tests/LabTests/RiscTests.swift.
  static let root = URL(filePath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let areThere = FileManager.default.fileExists(
    atPath: root.appending(path: ".cache/risc/bin").path)
}

@Suite("The lab's experiment risc", .needsKVM, .limited)
struct RiscTests {
  /// The facts that kvmlite tells as JSON, run by `wrapper` with `environment`.
  private func facts(
    by wrapper: [String] = [], _ environment: [String: String] = [:]
  ) throws -> [String: Any] {
    let words = wrapper + [Kvmlite.path, "lab", "risc", "--json"]
    let result = try Kvmlite.end(
      of: ChildProcess(words[0], Array(words.dropFirst()), environment: environment))
    #expect(result.end == .exited(0), "\(result.errors)")
    return try #require(object(result.output)["facts"] as? [String: Any])
  }

  @Test("x86 and the rings of host and guest need nothing else")
  func x86() throws {
    let report = try run("risc")
    let critical = try run("critical")
    #expect(report.fact("unnoticed/x86") == critical.fact("critical"))
    #expect(try report.number("sensitive/x86") == critical.number("sensitive"))
    #expect(try !report.flag("theorem/x86"))
    #expect(try report.number("host_ring") == 3)
    for ring in 0..<4 {
      #expect(try report.number("guest_ring/\(ring)") == ring)
      #expect(try report.string("guest_cli/\(ring)") == (ring == 0 ? "runs" : "#GP(0)"))
    }
    #expect(try report.number("cli_exceptions") == 3)
  }

  @Test(
    "RISC-V's fourteen trap in user mode, and three of ARMv7's run silently",
    .enabled(if: Emulators.areThere, "scripts/risc --prepare fetches the emulators"))
  func others() throws {
    let facts = try facts(by: [Emulators.root.appending(path: "scripts/risc").path, "--"])
    #expect(facts["sensitive/RISC-V"] as? Int == 14 && facts["traps/RISC-V"] as? Int == 14)
    #expect(facts["unnoticed/RISC-V"] as? [String] == [])
    #expect(facts["theorem/RISC-V"] as? Bool == true)
    #expect(facts["sensitive/ARMv7"] as? Int == 14 && facts["traps/ARMv7"] as? Int == 11)
    #expect(facts["unnoticed/ARMv7"] as? [String] == ["CPS", "MRS CPSR", "MSR CPSR_c"])
    #expect(facts["theorem/ARMv7"] as? Bool == false)
    // A kernel in supervisor mode can use each.
    for (key, value) in facts where key.hasPrefix("supervisor/") {
      #expect(value as? String == (key.hasSuffix("rdcycle") ? "traps" : "runs"), "\(key)")
    }
    // Neither the mode nor the mask changes in user mode; both do in supervisor mode.
    for (name, supervisor) in [("CPS", "0x93"), ("MRS CPSR", "0x13"), ("MSR CPSR_c", "0xd3")] {
      #expect(facts["told_user/ARMv7/\(name)"] as? String == "0x10", "\(name)")
      #expect(facts["told_supervisor/ARMv7/\(name)"] as? String == supervisor, "\(name)")
    }
    #expect(facts["user/RISC-V/add"] as? String == "runs")
    #expect(facts["user/ARMv7/ADD"] as? String == "runs")
  }

  @Test("without the emulators it says what is missing and what to do")
  func missing() throws {
    let facts = try facts([:].merging(["PATH": "/nowhere"]) { $1 })
    #expect(facts["theorem/RISC-V"] as? String == "n/a")
    #expect(facts["theorem/ARMv7"] as? String == "n/a")
    let text = try Kvmlite.end(
      of: ChildProcess(Kvmlite.path, ["lab", "risc"], environment: ["PATH": "/nowhere"]))
    #expect(text.output.contains("no qemu-system-arm in PATH. `scripts/risc -- kvmlite"))
  }

  @Test(
    "an emulator that does not run the image is told, with its words", .sameOnEachHost,
    arguments: [
      ("echo no such machine >&2; exit 1", "it said: no such machine"),
      ("printf 'sensitive\\tx\\tuser\\truns\\t1\\nend\\n'", "a line that is none"),
      ("yes", "did not run the image"), ("printf 'end\\n\\377\\n'", "did not run the image"),
    ])
  func wrong(script: String, words: String) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "kvmlite-risc-\(UUID())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: folder) }
    let program = folder.appending(path: "qemu-system-riscv64").path
    let bound = "ulimit -f 64; "
    try Data("#!/bin/sh\n\(bound)\(script)\n".utf8).write(to: URL(filePath: program))
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program)
    let result = try Kvmlite.end(
      of: ChildProcess(
        Kvmlite.path, ["lab", "risc"], environment: ["PATH": folder.path + ":/usr/bin:/bin"]))
    #expect(result.end == .exited(69) && result.errors.contains(words), "\(result.errors)")
  }
}
