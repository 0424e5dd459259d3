import Foundation
import TestSupport
import Testing

@Suite("docs/statistics.md agrees with what kvmlite writes", .needsKVM, .limited)
struct ReportDocumentTests {
  private let scratch: Scratch
  private let lines: [String]

  init() throws {
    scratch = try Scratch()
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    lines = try String(contentsOf: root.appending(path: "docs/statistics.md"), encoding: .utf8)
      .components(separatedBy: "\n")
  }

  /// The cells of each row of the table below `heading`, without backticks.
  private func rows(_ heading: String) throws -> [[String]] {
    let start = try #require(lines.firstIndex(of: heading))
    let table = lines[(start + 1)...].drop { !$0.hasPrefix("|") }.prefix { $0.hasPrefix("|") }
    return table.dropFirst(2).map { row in
      row.split(separator: "|", omittingEmptySubsequences: false).dropFirst().dropLast()
        .map { $0.trimmingCharacters(in: .whitespaces).replacing("`", with: "") }
    }
  }

  private func object(_ path: String) throws -> [String: Any] {
    try #require(
      JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path))) as? [String: Any])
  }

  /// The types that each key has, whose names are KVM's or a device's where the table says NAME.
  private func collect(_ value: Any, _ path: String, into types: inout [String: Set<String>]) {
    if let members = value as? [String: Any] {
      let isNamed = ["exits", "kvm", "devices[].counters"].contains(path)
      for (name, value) in members {
        let key = isNamed ? "NAME" : name
        collect(value, path.isEmpty ? key : path + "." + key, into: &types)
      }
    } else if let items = value as? [Any] {
      for item in items { collect(item, path + "[]", into: &types) }
    } else {
      let type = value is NSNull ? "null" : value is String ? "text" : "number"
      types[path, default: []].insert(type)
    }
  }

  @Test("every key of the statistics, and no other")
  func statistics() throws {
    let disk = try scratch.file("disk", [UInt8](repeating: 0, count: 4096))
    let counts = scratch.path + "/counts.json"
    var types: [String: Set<String>] = [:]
    for options in [
      ["guest:ide-pio", "--disk", disk + ",bus=ide"],
      ["guest:virtio-block", "--disk", disk + ",bus=mmio", "--balloon", "1M"],
    ] {
      _ = try Kvmlite.end(of: Kvmlite.start(options + ["--stats-file", counts]))
      collect(try object(counts), "", into: &types)
    }

    let rows = try rows("## Statistics")
    #expect(Set(rows.map { $0[0] }) == Set(types.keys))
    for row in rows {
      let told = Set(row[1].components(separatedBy: " or "))
      #expect(types[row[0]]?.isSubset(of: told) == true, "\(row[0]): \(types[row[0]] ?? [])")
    }
  }

  @Test(
    "ends by their words, with what else there is",
    arguments: [
      ("powered-off", ["guest:poweroff"]), ("halted", ["guest:hello-real"]),
      ("reset", ["guest:reset", "--no-reboot"]), ("exited", ["guest:exit-port"]),
      ("crashed", ["guest:triple-fault"]), ("timed-out", ["guest:spin", "--timeout", "0.1"]),
    ] as [(String, [String])])
  func outcome(end: String, options: [String]) throws {
    let file = scratch.path + "/outcome.json"
    let result = try Kvmlite.end(of: Kvmlite.start(options + ["--outcome-file", file]))
    let outcome = try object(file)
    let row = try #require(try rows("## Outcome").first { $0[0] == end })
    #expect(outcome["end"] as? String == end)
    let words = row[2].split { !$0.isLetter && $0 != "_" }.map(String.init)
    let others = Set(outcome.keys).subtracting(["end", "status"])
    #expect(others.isSubset(of: words) && others.isEmpty == row[2].isEmpty, "\(outcome)")
    #expect(result.end == .exited(Int32(try #require(outcome["status"] as? Int))))
  }
}
