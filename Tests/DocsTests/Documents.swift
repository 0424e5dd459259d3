import Foundation
import Testing

/// The repository's files, as the tests of the documentation see them.
enum Documents {
  /// The repository's folder: this file is Tests/DocsTests/Documents.swift in it.
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// The text of the file at `path`.
  static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appending(path: path), encoding: .utf8)
  }

  /// Whether there is a file or folder at `path`.
  static func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: root.appending(path: path).path)
  }

  /// All files below `folder` whose names end in `suffix`, as paths from the root; hidden ones are
  /// left out.
  static func files(below folder: String, suffix: String) -> [String] {
    let start = folder.isEmpty ? root : root.appending(path: folder)
    let names = FileManager.default.enumerator(
      at: start, includingPropertiesForKeys: nil, options: [.skipsHiddenFiles])
    let prefix = root.path + "/"
    return (names?.compactMap { ($0 as? URL)?.path } ?? [])
      .filter { $0.hasSuffix(suffix) && $0.hasPrefix(prefix) }
      .map { String($0.dropFirst(prefix.count)) }.sorted()
  }

  /// The lines of the section of `text` that starts with the line `heading`.
  static func section(_ heading: String, of text: String) throws -> [String] {
    let lines = text.components(separatedBy: "\n")
    let start = try #require(lines.firstIndex(of: heading), "no section \(heading)")
    let level = heading.prefix { $0 == "#" }.count
    let rest = lines[(start + 1)...]
    let end = rest.firstIndex { line in
      let marks = line.prefix { $0 == "#" }.count
      return marks > 0 && marks <= level
    }
    return Array(rest[..<(end ?? rest.endIndex)])
  }

  /// The cells of all table rows in `lines`, without headings.
  static func rows(_ lines: [String]) -> [[String]] {
    let isRule = { (line: String) in line.hasPrefix("|---") }
    return lines.indices.filter { index in
      lines[index].hasPrefix("|") && !isRule(lines[index])
        && !(index + 1 < lines.count && isRule(lines[index + 1]))
    }.map { index in
      lines[index].replacingOccurrences(of: "\\|", with: "\u{0}")
        .split(separator: "|", omittingEmptySubsequences: false).dropFirst().dropLast()
        .map { $0.trimmingCharacters(in: .whitespaces) }
    }
  }
}
