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

  @Test("critical: all but INT n run in ring 3; UMIP takes five away; POPF is silent")
  func critical() throws {
    let report = try run("critical")
    let names = try Probe.Kit("critical").probes.map(\.name).filter { $0 != "NOP" }
    #expect(names.count == 20)
    let ofUMIP = ["SGDT", "SIDT", "SLDT", "STR", "SMSW"]
    #expect(report.fact("critical") == list(names.filter { $0 != "INT n" }))
    if try report.flag("umip") {
      for name in ofUMIP { #expect(try report.string("ring3_umip/" + name) == "#GP(0)", "\(name)") }
      #expect(
        report.fact("critical_umip") == list(names.filter { $0 != "INT n" && !ofUMIP.contains($0) })
      )
    } else {
      #expect(try report.string("ring3_umip/SGDT") == "n/a")
    }
    let silent = report.questions.first { $0.id == "popf-silent" }
    #expect(silent?.answer == .flag(true))
    if emulatesRing0 {
      #expect(try report.string("ring0/LAR") == "not in KVM's emulator")
      #expect(report.fact("leaks") == list(["MOV from CS", "PUSHF", "PUSH GS"]))
    } else {
      #expect(report.fact("leaks") == list([]))
      #expect(try report.string("ring0/LAR") == "runs")
      #expect(try report.string("ring0/INT n") == "vector 129")
    }
  }

  private func list(_ names: [String]) -> Report.Fact { .list(names.map { .text($0) }) }

  @Test("that never end are told to leave, and said to")
  func overdue() throws {
    // 10000: jmp 0x10000
    let bench = try Bench([0xEB, 0xFE], seconds: 0, what: "a loop")
    #expect(throws: LabError.self) { try bench.run() }
  }
}
