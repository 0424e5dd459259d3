import Foundation
import KVMLite
import Testing

/// Where `scripts/linux-guest` has put a kernel and its initial RAM disk.
private let folder = ProcessInfo.processInfo.environment["LINUX_GUEST"]

@Suite(
  "Linux", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"),
  .enabled(if: folder != nil, "LINUX_GUEST names no folder"))
struct LinuxTests {
  @Test("runs a command and switches the power off")
  func command() async throws {
    let folder = try #require(folder)
    var configuration = VMConfiguration()
    configuration.image = folder + "/vmlinuz"
    configuration.initrds = [folder + "/initrd.cpio.gz"]
    configuration.append = "RUN=\"uname -s; nproc\""
    configuration.memorySize = 256 << 20
    configuration.vcpuCount = 2
    let machine = try VirtualMachine(configuration, timeLimit: .seconds(600))

    async let outcome = machine.run()
    try await machine.console.wait(for: "Linux\r\n2\r\n")

    #expect(try await outcome.exitStatus == 0)
  }
}
