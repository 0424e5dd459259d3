import KVMLite
import Testing

@Suite("My guest", .enabled(if: VirtualMachine.unavailability == nil, "needs a usable /dev/kvm"))
struct MyGuestTests {
  @Test("prints OK and leaves with 3")
  func printsOK() async throws {
    let code: [UInt8] = [
      0xBA, 0xF8, 0x03,  //  mov dx, 0x3F8
      0xB0, 0x4F,  //        mov al, 'O'
      0xEE,  //              out dx, al
      0xB0, 0x4B,  //        mov al, 'K'
      0xEE,  //              out dx, al
      0xB0, 0x03,  //        mov al, 3
      0xE6, 0xF4,  //        out 0xF4, al
    ]
    var configuration = VMConfiguration()
    configuration.memorySize = 16 << 20
    let machine = try VirtualMachine(configuration, image: code, timeLimit: .seconds(600))

    let outcome = try await machine.run()

    #expect(outcome.exitValue == 3, "\(outcome)")
    #expect(machine.console.text == "OK")
  }

  @Test("a built-in guest prints what its header promises")
  func builtIn() async throws {
    let guest = try #require(Guest.named("hello-long"))
    let machine = try VirtualMachine(VMConfiguration(guest: guest), timeLimit: .seconds(600))

    let outcome = try await machine.run()

    #expect(guest.expectedOutput.matches(machine.console.bytes), "\(machine.console.text)")
    #expect(outcome.exitStatus == guest.expectedStatus, "\(outcome)")
  }
}
