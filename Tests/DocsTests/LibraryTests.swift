import Foundation
import TestSupport
import Testing

@Suite("docs/library.md shows what is tested", .limited)
struct LibraryTests {
  @Test("its examples are the files of Tests/LibraryExampleTests, word for word, and each is there")
  func examples() throws {
    let document = try Documents.text("docs/library.md")
    let files = Documents.files(below: "Tests/LibraryExampleTests", suffix: ".swift")
    #expect(files.count >= 6)
    for file in files {
      #expect(document.contains("```swift\n\(try Documents.text(file))```\n"), "\(file)")
    }
    // One more is of Package.swift.
    #expect(document.components(separatedBy: "```swift\n").count - 1 == files.count + 1)
  }
}
