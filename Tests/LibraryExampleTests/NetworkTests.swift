import Foundation
import KVMLite
import Testing

@Suite("A network", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"))
struct NetworkTests {
  @Test("sockets of guest and host meet at a path")
  func vsock() async throws {
    let path = NSTemporaryDirectory() + "vsock-\(UUID().uuidString)"
    let guest = try #require(Guest.named("pci"))
    var configuration = VMConfiguration(guest: guest)
    configuration.devices = [.init(.vsock(.init(cid: 3, socket: path)))]
    let machine = try VirtualMachine(configuration, timeLimit: .seconds(600))

    #expect(FileManager.default.fileExists(atPath: path))
    let outcome = try await machine.run()

    #expect(machine.console.text.contains("1af4:1053"), "the guest finds its vsock: \(outcome)")
    #expect(!FileManager.default.fileExists(atPath: path))
  }

  @Test(
    "a card behind which passt translates",
    .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/passt"), "needs passt"))
  func card() async throws {
    let guest = try #require(Guest.named("pci"))
    var card = VMConfiguration.Net()
    card.isUser = true
    card.mac = MACAddress("02:00:00:00:00:01")
    var configuration = VMConfiguration(guest: guest)
    configuration.devices = [.init(.net(card))]
    let machine = try VirtualMachine(configuration, timeLimit: .seconds(600))

    let outcome = try await machine.run()

    #expect(machine.console.text.contains("1af4:1041"), "the guest finds its card: \(outcome)")
  }
}
