import Doctor
import Machine
import Testing

@Suite("My guest", .enabled(if: HostReport.make().trouble == nil, "needs a usable /dev/kvm"))
struct MyGuestTests {
  @Test("prints OK and leaves with 3")
  func printsOK() throws {
    let code: [UInt8] = [
      0xBA, 0xF8, 0x03,  //  mov dx, 0x3F8
      0xB0, 0x4F,  //        mov al, 'O'
      0xEE,  //              out dx, al
      0xB0, 0x4B,  //        mov al, 'K'
      0xEE,  //              out dx, al
      0xB0, 0x03,  //        mov al, 3
      0xE6, 0xF4,  //        out 0xF4, al
    ]
    let console = ConsoleBuffer()
    var configuration = VMConfiguration()
    configuration.memorySize = 16 << 20
    let resources = Resources(
      image: .init(code, name: "my guest", mode: .real), console: console)

    let outcome = try Machine(configuration, resources, RunOptions(timeLimit: 10)).run()

    guard case .exited(let value) = outcome else {
      Issue.record("the guest ended otherwise: \(outcome)")
      return
    }
    #expect(value == 3)
    #expect(console.text == "OK")
  }
}
