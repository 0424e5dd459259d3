import TestSupport
import Testing

@testable import Machine

@Suite("docs/control.md agrees with the code", .limited)
struct ControlTests {
  @Test("the table has each command, and no other")
  func commands() throws {
    let text = try Documents.text("docs/control.md")
    let rows = Documents.rows(try Documents.section("# The control socket", of: text))
    #expect(rows.map { $0[0].filter { $0 != "`" } } == ControlServer.commands)
    #expect(text.contains("\(ControlServer.longestMessage >> 10) KiB"))
  }
}
