import KVMLite
import Testing

@Suite("Machines", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"))
struct SideBySideTests {
  @Test("two of them run side by side")
  func two() async throws {
    let real = try #require(Guest.named("hello-real"))
    let long = try #require(Guest.named("hello-long"))
    let first = try VirtualMachine(VMConfiguration(guest: real), timeLimit: .seconds(600))
    let second = try VirtualMachine(VMConfiguration(guest: long), timeLimit: .seconds(600))

    async let one = first.run()
    async let other = second.run()
    let outcomes = try await [one, other]

    #expect(outcomes.allSatisfy { $0.exitStatus == 0 }, "\(outcomes)")
    #expect(real.expectedOutput.matches(first.console.bytes))
    #expect(long.expectedOutput.matches(second.console.bytes))
  }

  @Test("a machine stands still, is looked at, and goes on")
  func pause() async throws {
    let count: [UInt8] = [
      0xB0, 0x21,  //              mov al, '!'
      0xE6, 0xE9,  //              out 0xE9, al
      0x66, 0xFF, 0x06, 0, 0x40,  // inc dword ptr [0x4000]
      0xEB, 0xF9,  //              jmp to the inc
    ]
    var configuration = VMConfiguration()
    configuration.memorySize = 16 << 20
    configuration.mode = .real
    let machine = try VirtualMachine(configuration, image: count, timeLimit: .seconds(600))

    async let outcome = machine.run()
    try await machine.console.wait(for: "!")
    try await machine.pause()
    // Its segments begin at 0x10000.
    let before = try await machine.memory(at: GuestAddress(0x14000), count: 4)
    let after = try await machine.memory(at: GuestAddress(0x14000), count: 4)
    let registers = try await machine.registers()
    let statistics = await machine.statistics
    #expect(machine.state == .paused)
    #expect(before == after)
    #expect((4...9).contains(registers.rip))
    #expect(statistics.elapsed > 0)

    try await machine.resume()
    await machine.stop()
    guard case .stopped = try await outcome else { throw Ended(outcome: try await outcome) }
  }

  struct Ended: Error { let outcome: Outcome }
}
