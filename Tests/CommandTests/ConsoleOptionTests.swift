import TestSupport
import Testing

@Suite("--console", .needsKVM, .limited)
struct ConsoleOptionTests {
  @Test("gives input to a virtio console, which it adds, if it is told to")
  func virtioInput() throws {
    let with = try Kvmlite.run("--console", "stdio,input=virtio", "--verbose")
    #expect(with.output == "Hello from real mode!\n")
    #expect(with.errors.contains("virtio-console"))
    let without = try Kvmlite.run("--console", "stdio,input=serial", "--verbose")
    #expect(without.output == "Hello from real mode!\n")
    #expect(!without.errors.contains("virtio-console"))
  }

  @Test("then leaves the serial port without")
  func serialInput() throws {
    let input = ChildProcess.Input.bytes(Array("q".utf8))
    let serial = try Kvmlite.run("--console", "stdio,input=serial", "guest:echo", input: input)
    #expect(serial.output.hasSuffix("Bye.\n"))
    let virtio = try Kvmlite.run(
      "--console", "stdio,input=virtio", "--timeout", "3", "guest:echo", input: input)
    #expect(virtio.end == .exited(124))
    #expect(virtio.output == "Type, and end with Ctrl-D or q.\n")
  }

  @Test("a device that there is not: 64")
  func unknown() throws {
    #expect(try Kvmlite.run("--console", "stdio,input=usb").end == .exited(64))
  }
}
