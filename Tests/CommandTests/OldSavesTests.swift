import Foundation
import TestSupport
import Testing

/// Saves that earlier versions made (scripts/old-saves), one archive for each machine.
@Suite("Saved machines of earlier versions", .needsKVM, .limited)
struct OldSavesTests {
  private static let saves = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "Saves")
  private static let versions =
    (try? FileManager.default.contentsOfDirectory(atPath: saves.path)) ?? []

  /// A machine's name, and what is printed once it goes on.
  private static let machines = [
    "asleep": ".\n", "devices": "1af4:1044\n00:03.0 1af4:1045\n", "long": "Ring 3 counts 78498 ",
  ]

  @Test("go on", arguments: versions, machines.keys.sorted())
  func goOn(version: String, machine: String) throws {
    let machines = try NamedMachines()
    let archive = Self.saves.appending(path: "\(version)/\(machine).tar.gz").path
    let unpacked = try Kvmlite.run(["-C", machines.path, "-xzSf", archive], of: "tar")
    try #require(unpacked.end == .exited(0), "\(unpacked.errors)")
    let result = try machines.run("restore", machines.path, "--verify")
    // Another make of processor may lack what the one had that the save is of.
    guard result.end != .exited(69) else { return }
    #expect(result.end == .exited(0), "\(result.errors)")
    let expected = try #require(Self.machines[machine])
    #expect(result.output.contains(expected), "\(result.output)")
  }

  @Test("are there for each machine")
  func complete() {
    #expect(Self.versions.contains("0.1"))
  }
}
