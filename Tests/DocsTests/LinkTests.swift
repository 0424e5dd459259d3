import Foundation
import TestSupport
import Testing

@Suite("Links between documents", .limited)
struct LinkTests {
  private struct Link: CustomStringConvertible {
    let document: String
    let target: String
    var description: String { "\(document) -> \(target)" }
  }

  private static let documents = Documents.files(below: "", suffix: ".md")

  /// All targets of `[text](target)` outside code blocks.
  private static func links(in document: String) throws -> [Link] {
    var isCode = false
    var links: [Link] = []
    for line in try Documents.text(document).components(separatedBy: "\n") {
      if line.hasPrefix("```") { isCode.toggle() }
      if isCode || line.hasPrefix("    ") { continue }
      for part in line.components(separatedBy: "](").dropFirst() {
        links.append(Link(document: document, target: String(part.prefix { $0 != ")" })))
      }
    }
    return links
  }

  /// The anchors of a document's headings, as GitHub makes them.
  private static func anchors(in document: String) throws -> Set<String> {
    let headings = try Documents.text(document).components(separatedBy: "\n")
      .filter { $0.hasPrefix("#") }
    return Set(
      headings.map { heading in
        String(
          heading.drop { $0 == "#" || $0 == " " }.lowercased()
            .filter { $0.isLetter || $0.isNumber || $0 == " " || $0 == "-" || $0 == "_" }
            .map { $0 == " " ? "-" : $0 })
      })
  }

  @Test("each leads to a file that is there, and to a heading that is in it")
  func alive() throws {
    #expect(Self.documents.contains("README.md"))
    for link in try Self.documents.flatMap(Self.links) where !link.target.contains("://") {
      let parts = link.target.split(
        separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
      let folder = URL(filePath: "/" + link.document).deletingLastPathComponent()
      let path =
        parts[0].isEmpty
        ? link.document
        : String(folder.appending(path: String(parts[0])).standardized.path.dropFirst())
      #expect(Documents.exists(path), "\(link)")
      if parts.count > 1, path.hasSuffix(".md"), Documents.exists(path) {
        #expect(try Self.anchors(in: path).contains(String(parts[1])), "\(link)")
      }
    }
  }
}
