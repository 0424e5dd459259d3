import Foundation
import Host
import Sandbox
import TestSupport
import Testing

private let hasLibseccomp =
  (try? ChildProcess("/usr/bin/python3", ["-c", "import seccomp"]).waitForEnd()) == .exited(0)

@Suite(
  "The filters and those that libseccomp makes of the same table",
  .enabled(if: hasLibseccomp, "needs python3-seccomp, for /usr/bin/python3"), .limited,
  .sameOnEachHost)
struct LibseccompTests {
  private static let process: Int32 = 4711
  private static let trap: UInt32 = 0x0003_0000

  /// A row of the table, as the script beside this file reads it.
  private static func row(_ rule: SystemCallFilter.Rule) -> [Any] {
    switch rule.verdict {
    case .allow: [rule.number, NSNull(), NSNull(), 0, [Int]()]
    case .fail(let error): [rule.number, Int(error), NSNull(), 0, [Int]()]
    case .allowIf(let index, let mask, let values):
      [rule.number, NSNull(), index, Int(mask), values.map { Int($0) }]
    }
  }

  private static func theirs(_ rules: [SystemCallFilter.Rule]) throws -> FilterMachine {
    let script = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "libseccomp-filter").path
    let table = try JSONSerialization.data(withJSONObject: rules.map(row))
    let process = try ChildProcess(
      "/usr/bin/python3", [script, String(decoding: table, as: UTF8.self)])
    try #require(try process.waitForEnd() == .exited(0), "\(process.errorText)")
    return FilterMachine(bytes: process.output)
  }

  @Test(
    "decide alike, for each call, and with arguments on and beside what is allowed",
    arguments: ThreadRole.allCases)
  func decisions(role: ThreadRole) throws {
    let rules = SystemCalls.rules(for: role, process: Self.process)
    let ours = FilterMachine(SystemCalls.filter(for: role, process: Self.process))
    let theirs = try Self.theirs(rules)
    var values: Set<UInt64> = [0, 1, 2, 4, 7, 0x7FFF_FFFF, 0xFFFF_FFFF, .max]
    var listed: [Int: Set<UInt64>] = [:]
    for rule in rules {
      guard case .allowIf(_, _, let allowed) = rule.verdict else { continue }
      for value in allowed.map(UInt64.init) {
        listed[rule.number, default: values].formUnion([
          value, value &- 1, value &+ 1, value << 32, value | 1 << 32, value | 0xFFFF_FFFF << 32,
          value | 1 << 31, value ^ 0x100,
        ])
      }
    }
    values.insert(UInt64(Self.process))
    var (count, allowed) = (0, 0)
    // x32's calls are those from 0x40000000 on.
    for number in Array(-1...600) + (0...600).map({ 0x4000_0000 + $0 }) {
      // Its arguments alike, or the one that is asked for alone.
      for value in listed[number] ?? values {
        for place in [nil, 0, 1, 2, 3] as [Int?] {
          var arguments = [UInt64](repeating: place == nil ? value : 0x55_0000_0055, count: 6)
          if let place { arguments[place] = value }
          let decision = ours.run(number, arguments)
          #expect(decision != nil)
          #expect(decision == theirs.run(number, arguments), "\(number) with \(arguments)")
          count += 1
          if decision != Self.trap { allowed += 1 }
        }
      }
    }
    // Neither lets all or nothing through.
    #expect(allowed > 500 && allowed < count / 2, "\(allowed) of \(count)")
  }

  @Test("refuse another architecture's calls", arguments: ThreadRole.allCases)
  func architecture(role: ThreadRole) throws {
    let rules = SystemCalls.rules(for: role, process: Self.process)
    let ours = FilterMachine(SystemCalls.filter(for: role, process: Self.process))
    let theirs = try Self.theirs(rules)
    let none = [UInt64](repeating: 0, count: 6)
    // i386, AArch64
    for architecture: UInt32 in [0x4000_0003, 0xC000_00B7] {
      for number in 0...600 {
        #expect(ours.run(number, none, architecture: architecture) == 0x8000_0000)
        #expect(theirs.run(number, none, architecture: architecture) == Self.trap)
      }
    }
  }
}
