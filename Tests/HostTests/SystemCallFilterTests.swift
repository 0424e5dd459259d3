import Host
import Sandbox
import Testing

@Suite("The filters of system calls", .limited, .sameOnEachHost)
struct SystemCallFilterTests {
  private static let allow: UInt32 = 0x7FFF_0000
  private static let trap: UInt32 = 0x0003_0000
  private static let error: UInt32 = 0x0005_0000
  private static let ioctl = 16
  private static let run: UInt64 = 0xAE80

  /// What the table says of a call.
  private func expected(
    _ rules: [Int: SystemCallFilter.Verdict], _ number: Int, _ arguments: [UInt64]
  ) -> UInt32 {
    switch rules[number] {
    case .allow: Self.allow
    case .fail(let code): Self.error | UInt32(code)
    case .allowIf(let index, let mask, let values):
      values.contains(UInt32(truncatingIfNeeded: arguments[index]) & mask) ? Self.allow : Self.trap
    case nil: Self.trap
    }
  }

  @Test(
    "decide as their table says, for each call and its arguments", arguments: ThreadRole.allCases)
  func decisions(role: ThreadRole) {
    let rules = Dictionary(
      uniqueKeysWithValues: SystemCalls.rules(for: role, process: 4711).map {
        ($0.number, $0.verdict)
      })
    let machine = FilterMachine(SystemCalls.filter(for: role, process: 4711))
    var values: Set<UInt64> = [0, 1, 2, 3, 4, 7, 16, 4711, Self.run, 0x1000, UInt64.max]
    for case .allowIf(_, _, let allowed) in rules.values {
      for value in allowed {
        values.formUnion([UInt64(value), UInt64(value) &+ 1, UInt64(value) << 32])
      }
    }
    for number in Array(0...600) + [0x4000_0000, 0x4000_0010, 0xFFFF_FFFF] {
      for value in values {
        let arguments = [UInt64](repeating: value, count: 6)
        let decision = machine.run(number, arguments)
        #expect(decision == expected(rules, number, arguments), "\(number) with \(value)")
      }
    }
  }

  @Test("allow a VCPU's thread to run it, and no worker")
  func running() {
    for role in ThreadRole.allCases {
      let machine = FilterMachine(SystemCalls.filter(for: role, process: 1))
      let decision = machine.run(Self.ioctl, [0, Self.run, 0, 0, 0, 0])
      #expect(decision == (role == .worker ? Self.trap : Self.allow))
    }
  }

  @Test("allow nobody to make memory executable, a process, or a file's name")
  func forbidden() {
    for role in ThreadRole.allCases {
      let machine = FilterMachine(SystemCalls.filter(for: role, process: 1))
      for number in [
        2, 41, 42, 49, 56, 57, 58, 59, 62, 82, 83, 87, 101, 165, 257, 272, 310, 322, 425,
      ] {
        #expect(machine.run(number, [0, 0, 0, 0, 0, 0]) == Self.trap, "\(number)")
      }
      #expect(machine.run(9, [0, 4096, 5, 0, 0, 0]) == Self.trap)
      #expect(machine.run(10, [0, 4096, 4, 0, 0, 0]) == Self.trap)
      #expect(machine.run(435, [0, 0, 0, 0, 0, 0]) == Self.error | 38)
    }
  }

  @Test("exempt the one address that is given, where calls are only noted")
  func exempt() {
    let address: UInt64 = 0x1234_5678_9ABC
    let machine = FilterMachine(
      SystemCalls.filter(for: .vcpu, process: 1, exempt: address))
    let none = [UInt64](repeating: 0, count: 6)
    #expect(machine.run(59, none, address: address) == Self.allow)
    #expect(machine.run(59, none, address: address + 1) == Self.trap)
    #expect(machine.run(59, none, address: address + 1 << 32) == Self.trap)
  }

  @Test("are short, for the kernel makes them anew for each thread", arguments: ThreadRole.allCases)
  func length(role: ThreadRole) {
    #expect(SystemCalls.filter(for: role, process: 1).program.count < 400)
  }
}
