import Doctor
import TestSupport
import Testing

@Suite("What is said of a host", .limited)
struct HostReportTests {
  @Test("the back end is the module that fits the processor, also where both are built in")
  func backEnd() {
    let both = ["kvm", "kvm_amd", "kvm_intel", "ext4"]
    #expect(HostFacts(cpuinfo: "flags : vmx", modules: both).backEnd == "kvm_intel")
    #expect(HostFacts(cpuinfo: "flags : svm", modules: both).backEnd == "kvm_amd")
    #expect(HostFacts(cpuinfo: "flags : fpu", modules: ["kvm", "kvm_pvm"]).backEnd == "kvm_pvm")
    #expect(HostFacts(cpuinfo: "flags : fpu", modules: ["kvm", "kvm_new"]).backEnd == "kvm_new")
    #expect(HostFacts(cpuinfo: "flags : vmx", modules: ["kvm"]).backEnd == nil)
  }

  @Test("the module's parameters are read as on, off or unknown")
  func switches() throws {
    let backEnd = BackEnd(
      name: "kvm_intel", parameters: ["ept": "Y", "unrestricted_guest": "N", "nested": "1"])
    let isOn = { name in backEnd.switches.first { $0.name == name }?.isOn }
    #expect(isOn("ept") == true)
    #expect(isOn("unrestricted_guest") == false)
    #expect(isOn("nested") == true)
    #expect(isOn("vpid") == .some(nil))
    let meaning = { name in backEnd.switches.first { $0.name == name }?.meaning }
    #expect(meaning("ept") == "the guest's page tables cost no exits")
    #expect(meaning("unrestricted_guest") == "KVM emulates real mode")
    #expect(backEnd.hasNestedPaging == true)
    let shadowing = BackEnd(name: "kvm_amd", parameters: ["npt": "N"])
    #expect(shadowing.hasNestedPaging == false)
    #expect(shadowing.switches[0].meaning.contains("shadows"))
  }

  @Test("kvm_pvm's users are told that ring 0 is emulated and Linux doesn't boot; others aren't")
  func notes() {
    let words = BackEnd(name: "kvm_pvm").notes.joined(separator: "\n")
    #expect(words.contains("emulated"))
    #expect(words.contains("stock Linux kernel does not boot"))
    #expect(words.contains("kvm_intel or kvm_amd"))
    #expect(BackEnd(name: "kvm_amd").notes.isEmpty)
    #expect(BackEnd(name: "kvm_new").switches.isEmpty)
  }

  @Test("a report of this host is made with or without KVM")
  func thisHost() {
    let report = HostReport.make()
    if report.trouble == nil {
      #expect(report.facilities.allSatisfy { !$0.isRequired || $0.isThere })
    }
    for facility in report.facilities { #expect(facility.name.hasPrefix("KVM_CAP_")) }
  }
}
