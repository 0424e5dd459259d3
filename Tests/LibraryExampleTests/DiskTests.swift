import Foundation
import KVMLite
import Testing

@Suite("A disk", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"))
struct DiskTests {
  @Test("keeps what one machine writes for the next one")
  func writeAndRead() async throws {
    let path = NSTemporaryDirectory() + "disk-\(UUID().uuidString).img"
    try Data(count: 1 << 20).write(to: URL(filePath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    let guest = try #require(Guest.named("disk-virtio"))
    var configuration = VMConfiguration(guest: guest)
    configuration.devices = [.init(.disk(.init(path: path, bus: .mmio)))]

    let writer = try VirtualMachine(configuration, timeLimit: .seconds(600))
    writer.console.write("w 7\nf\nq\n")
    let written = try await writer.run()

    let reader = try VirtualMachine(configuration, timeLimit: .seconds(600))
    reader.console.write("r 7\nq\n")
    let read = try await reader.run()

    #expect(written.exitStatus == 0 && writer.console.text == "ok\nok\n", "\(written)")
    #expect(read.exitStatus == 0 && reader.console.text == "ok 7\n", "\(read)")
  }

  @Test("a file that isn't there is told of in words")
  func missing() {
    var configuration = VMConfiguration()
    configuration.devices = [.init(.disk(.init(path: "/no/such/disk.img")))]

    do throws(VirtualMachineError) {
      _ = try VirtualMachine(configuration)
      Issue.record("a machine was made")
    } catch {
      #expect(error.reason == .resource)
      #expect((error as any Error).localizedDescription.contains("/no/such/disk.img"))
    }
  }
}
