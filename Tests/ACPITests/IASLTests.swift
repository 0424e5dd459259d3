import ACPI
import Foundation
import TestSupport
import Testing

/// ACPICA's compiler, from Debian's acpica-tools.
private enum IASL {
  static let path = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin").split(
    separator: ":"
  )
  .map { "\($0)/iasl" }.first { FileManager.default.isExecutableFile(atPath: $0) }
  static let isRequired = ProcessInfo.processInfo.environment["KVMLITE_REQUIRE_IASL"] != nil

  /// Runs it and returns all that it says.
  static func run(_ arguments: String...) throws -> (end: ChildProcess.End, output: String) {
    let process = try ChildProcess(try #require(path, "there is no iasl in PATH"), arguments)
    let end = try process.waitForEnd()
    return (end, process.outputText + process.errorText)
  }
}

@Suite(
  .enabled(
    if: IASL.path != nil || IASL.isRequired,
    "needs iasl, from acpica-tools; KVMLITE_REQUIRE_IASL makes it fail instead"), .limited)
struct IASLTests {
  @Test(arguments: [1, 4, 300], ["DSDT", "FACP", "APIC", "MCFG", "FACS", "XSDT", "RSDT"])
  func `iasl takes each table apart and puts it together without a word`(
    processors: Int, name: String
  ) throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "iasl-\(UUID())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let memory = TableMemory(ACPITables(makePlatform(processors: processors), at: tableStart))
    let table = try #require(memory.table(named: name))
    let binary = folder.appending(path: "table.aml").path
    try Data(table).write(to: URL(filePath: binary))

    let apart = try IASL.run("-d", binary)
    #expect(apart.end == .exited(0))
    for word in ["rror", "arning", "nvalid", "ncorrect", "****"] {
      #expect(!apart.output.contains(word), "\(apart.output)")
    }
    let source = folder.appending(path: "table.dsl").path
    let text = try String(contentsOfFile: source, encoding: .utf8)
    #expect(!text.contains("Invalid") && !text.contains("Incorrect") && !text.contains("rror"))

    // DSDT is a program, the others are data that -d writes and the compiler reads.
    let again = folder.appending(path: "again").path
    let together = try IASL.run("-ve", "-p", again, source)
    #expect(together.end == .exited(0), "\(together.output)")
    let compiled = try Data(contentsOf: URL(filePath: again + ".aml"))
    #expect(compiled.count == table.count)
    // Length and checksum, and the compiler's own name and number, are its own.
    #expect(Array(compiled.dropFirst(36)) == Array(table.dropFirst(36)), "\(text)")
  }
}

extension TableMemory {
  /// The table with `signature`, wherever it is linked from.
  fileprivate func table(named signature: String) -> [UInt8]? {
    let fadt = address(of: "FACP")
    let places =
      entries(xsdt, width: 8) + [rsdt, xsdt, number(fadt + 36, 4), number(fadt + 40, 4)]
    return places.first { text($0, 4) == signature }.map(table)
  }
}
