import Foundation
import KVMLite
import KVMLiteTesting
import TestSupport
import Testing

/// A test that fails, for the one below, which runs it in a process of its own.
@Suite(
  "A failing test", .needsKVM, .limited, .showsConsoles,
  .enabled(
    if: ProcessInfo.processInfo.environment["KVMLITE_FAILING_TEST"] != nil,
    "run by another test alone"))
struct FailingTests {
  @Test("of two machines")
  func fails() async throws {
    for name in ["hello-real", "hello-long"] {
      let guest = try #require(Guest.named(name))
      let machine = try VirtualMachine(VMConfiguration(guest: guest), timeLimit: .seconds(600))
      _ = try await machine.run()
    }
    Issue.record("as it should")
  }

  @Test("of none that fails")
  func passes() async throws {
    let machine = try VirtualMachine(VMConfiguration(), timeLimit: .seconds(600))
    _ = try await machine.run()
  }
}

@Suite("The trait .showsConsoles", .needsKVM, .limited)
struct ConsoleTraitTests {
  @Test("shows what guests have printed when a test fails, attaches it, and is silent otherwise")
  func shows() throws {
    let folder = NSTemporaryDirectory() + "kvmlite-attachments-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let run = try ChildProcess(
      try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"),
      [
        "--testing-library", "swift-testing", "--filter", #"^KVMLiteTests\.FailingTests/"#,
        "--attachments-path", folder,
      ], environment: ["KVMLITE_FAILING_TEST": "1"])

    #expect(try run.waitForEnd() != .exited(0))

    let words = run.outputText + run.errorText
    #expect(words.contains("as it should"))
    #expect(words.contains("machine 1 has printed"))
    #expect(words.contains("Hello from real mode!"))
    #expect(words.contains("machine 2 has printed"))
    let names = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
    #expect(names == ["console1.txt", "console2.txt"])
    for (name, guest) in zip(names, ["hello-real", "hello-long"]) {
      let bytes = [UInt8](try Data(contentsOf: URL(filePath: folder + "/" + name)))
      #expect(try #require(Guest.named(guest)).expectedOutput.matches(bytes))
    }
  }
}
