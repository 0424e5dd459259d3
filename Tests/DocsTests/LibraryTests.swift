import Testing

@Suite("docs/library.md shows what is tested")
struct LibraryTests {
  @Test("the example is the file of Tests/LibraryExampleTests, word for word")
  func example() throws {
    let example = try Documents.text("Tests/LibraryExampleTests/HelloTests.swift")
    let document = try Documents.text("docs/library.md")
    #expect(document.contains("```swift\n\(example)```\n"))
  }
}
