import KVMLite
import KVMLiteTesting
import Testing

@Suite(
  "A dialogue", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"),
  .showsConsoles)
struct DialogueTests {
  @Test("the guest echoes what is typed")
  func echo() async throws {
    let guest = try #require(Guest.named("echo-irq"))
    let machine = try VirtualMachine(VMConfiguration(guest: guest), timeLimit: .seconds(600))

    async let outcome = machine.run()
    let prompt = try await machine.console.wait(for: "end with Ctrl-D or q.\n")
    machine.console.write("Hello")
    let answer = try await machine.console.wait(for: "Hello", timeout: .seconds(600))
    machine.console.write("q")

    #expect(prompt.hasPrefix("Type"))
    #expect(answer == "Hello")
    #expect(try await outcome.exitStatus == guest.expectedStatus)
  }

  @Test("the output comes piece by piece")
  func pieces() async throws {
    let machine = try VirtualMachine(VMConfiguration(), timeLimit: .seconds(600))

    async let outcome = machine.run()
    var bytes: [UInt8] = []
    for await piece in machine.console.output { bytes += piece }

    #expect(bytes == machine.console.bytes && !bytes.isEmpty)
    _ = try await outcome
  }
}
