import Foundation
import Testing
import TestSupport

/// Debian's stock kernels, from their first line to power-off.
@Suite("Stock Linux kernels", .needsKVM, .needsRingZero, .needsKernels, .serialized, .limited)
struct LinuxTests {
  private let patience = Deadline(seconds: 300)

  private func boot(_ arguments: [String]) throws -> ChildProcess {
    try ChildProcess(Kvmlite.path, arguments, deadline: patience)
  }

  @Test("run to /init and power off with status 0", arguments: ["cloud", "generic"])
  func powersOff(kernel: String) throws {
    let run = try boot(Kernels.linux(kernel, append: "quiet RUN=true"))
    #expect(try run.waitForEnd() == .exited(0))
    #expect(run.outputText.contains(", 1 CPU(s), "))
    #expect(run.outputText.contains("Power down"))
    #expect(!run.outputText.contains("ACPI Error"))
  }

  @Test("see all VCPUs and the memory above 4 GiB", arguments: ["cloud", "generic"])
  func large(kernel: String) throws {
    let run = try boot(
      ["--cpus", "4", "--memory", "6G"] + Kernels.linux(kernel, append: "quiet RUN=true"))
    #expect(try run.waitForEnd() == .exited(0))
    #expect(run.outputText.contains(", 4 CPU(s), 59"))
  }

  @Test("find the PCI bus with its windows and its configuration space in memory")
  func pci() throws {
    let command = "cat /proc/iomem /proc/ioports; echo /sys/bus/pci/devices/*"
    let run = try boot(Kernels.linux("cloud", append: "RUN=\"\(command)\""))
    #expect(try run.waitForEnd() == .exited(0))
    for text in [
      "PCI: MMCONFIG for domain 0000 [bus 00-00] at [mem 0xc0000000-0xc00fffff]",
      "c1000000-febfffff : PCI Bus 0000:00", "c000-ffff : PCI Bus 0000:00",
      "/sys/bus/pci/devices/0000:00:00.0",
    ] { #expect(run.outputText.contains(text), "\(text)") }
  }

  @Test("are interrupted by the clock's alarm")
  func alarm() throws {
    let command =
      "echo +2 >/sys/class/rtc/rtc0/wakealarm; n=0; "
      + "until grep -q ' [1-9][0-9]* .*rtc0' /proc/interrupts || [ $n -gt 60 ]; "
      + "do n=$((n+1)); sleep 1; done; grep rtc0 /proc/interrupts"
    let run = try boot(Kernels.linux("cloud", append: "quiet RUN=\"\(command)\""))
    #expect(try run.waitForEnd() == .exited(0))
    let line = run.outputText.split(separator: "\r\n").first { $0.hasSuffix("rtc0") } ?? ""
    #expect(line.split(separator: " ").prefix(2) == ["8:", "1"], "\(line)")
  }

  @Test("reboot for real: the image starts again")
  func reboots() throws {
    let run = try boot(Kernels.linux("cloud", append: "quiet RUN=\"reboot -f\""))
    try run.waitForOutput("init: ")
    try run.waitForOutput("reboot: Restarting system")
    let first = run.outputText.components(separatedBy: "init: ").count
    #expect(first == 2)
    try run.waitForOutput("init: ", times: 2)
    run.send(15)
    #expect(try run.waitForEnd() == .exited(143))
  }

  @Test(
    "end a run with --no-reboot by reboot and by panic",
    arguments: ["RUN=\"reboot -f\"", "rdinit=/none init=/none"])
  func noReboot(append: String) throws {
    let run = try boot(["--no-reboot"] + Kernels.linux("cloud", append: "quiet " + append))
    #expect(try run.waitForEnd() == .exited(0))
  }

  @Test("end with 3 where ROOT= leads nowhere")
  func noRoot() throws {
    let run = try boot(Kernels.linux("cloud", append: "quiet ROOT=/dev/vda"))
    #expect(try run.waitForEnd() == .exited(3))
    #expect(run.outputText.contains("init: ROOT=/dev/vda: there is no such disk"))
  }

  @Test("that hang are told of when the time is up")
  func hangs() throws {
    let run = try boot(
      ["--cpus", "2", "--timeout", "40"]
        + Kernels.linux("cloud", append: "quiet RUN=\"sleep 100000\""))
    #expect(try run.waitForEnd() == .exited(124))
    #expect(run.errorText.contains("VCPU 0: "))
    #expect(run.errorText.contains("VCPU 1: "))
  }
}
