import Foundation
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

  @Test("at a pseudo terminal that waits loses nothing: the guest starts when it is opened")
  func waitingTerminal() throws {
    let process = try Kvmlite.start(["--console", "pty,wait", "guest:echo-irq"])
    try process.waitForErrors("waited for\n")
    let words = process.errorText.split { " ,\n".contains($0) }
    let path = String(try #require(words.first { $0.hasPrefix("/dev/") }))
    // Not as this process's own, whose end would end it where it has none yet.
    let number = unsafe open(path, O_RDWR | O_NOCTTY)
    try #require(number >= 0)
    let terminal = FileHandle(fileDescriptor: number, closeOnDealloc: true)
    var text = ""
    while !text.contains("\n") {
      text += String(decoding: terminal.availableData, as: UTF8.self)
    }
    #expect(text == "Type, and end with Ctrl-D or q.\n")
    try terminal.write(contentsOf: Data("q".utf8))
    #expect(try process.waitForEnd() == .exited(0))

    let unopened = try Kvmlite.run("--console", "pty,wait", "--timeout", "0.2")
    #expect(unopened.end == .exited(124))
  }

  @Test("a device that there is not: 64")
  func unknown() throws {
    #expect(try Kvmlite.run("--console", "stdio,input=usb").end == .exited(64))
  }
}
