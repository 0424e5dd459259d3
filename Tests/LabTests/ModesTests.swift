import TestSupport
import Testing

@testable import Lab

@Suite("The lab's probes", .needsKVM)
struct ModesTests {
  @Test("modes: all trap in user mode and ring 3; in ring 0 three reach user space")
  func modes() throws {
    let report = try run("modes")
    let names = try Probe.Kit("modes").probes.map(\.name).filter { $0 != "NOP" }
    #expect(names.count == 20)
    for name in names {
      #expect(try report.string("host/" + name) == "#GP(0)", "\(name)")
      #expect(try report.string("ring3/" + name) == "#GP(0)", "\(name)")
      #expect(try !report.string("ring0/" + name).hasPrefix("#"), "\(name)")
    }
    #expect(report.fact("ring0_to_user") == .list([.text("HLT"), .text("IN"), .text("OUT")]))
    if emulatesRing0 {
      #expect(try report.number("ring0_emulated") == 17)
      #expect(try report.number("ring0_silent") == 0)
    } else {
      #expect(try report.number("ring0_emulated") == 0)
      #expect(try report.string("ring0/CLI") == "runs")
      #expect(try report.string("ring0/MOV to CR3") == "runs")
      #expect(try report.string("ring0/RDMSR FS_BASE") == "runs")
      #expect(try report.string("ring0/MOV to CR4") == "exit in KVM")
    }
  }

  @Test("that never end are told to leave, and said to")
  func overdue() throws {
    // 10000: jmp 0x10000
    let bench = try Bench([0xEB, 0xFE], seconds: 0, what: "a loop")
    #expect(throws: LabError.self) { try bench.run() }
  }
}
