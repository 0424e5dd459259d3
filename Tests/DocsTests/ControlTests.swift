import TestSupport
import Testing

@testable import Machine

@Suite("docs/control.md agrees with the code", .limited)
struct ControlTests {
  @Test("the table has each command, and no other")
  func commands() throws {
    let text = try Documents.text("docs/control.md")
    let rows = Documents.rows(try Documents.section("# The control socket", of: text))
      .map { $0.map { $0.filter { $0 != "`" } } }.filter { $0.count == 4 }
    let kinds = ControlMessage.Kind.allCases
    #expect(rows.map { $0[0] } == kinds.map(\.rawValue))
    #expect(rows.map { $0[1] } == kinds.map { $0.members.joined(separator: ", ") })
    #expect(rows.map { $0[2] } == kinds.map { $0.fileCount == 0 ? "" : "\($0.fileCount)" })
    for start in ConsoleHub.Start.allCases { #expect(text.contains("`\"\(start.rawValue)\"`")) }
    #expect(text.contains("\(ControlServer.longestMessage >> 10) KiB"))
  }
}
