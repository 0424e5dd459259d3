import Foundation
import TestSupport
import Testing

@Suite("kvmlite ends in order", .needsKVM, .limited)
struct EndTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  @Test(
    "by a signal, whatever the guest does: 128 and the signal's number",
    arguments: [SIGINT, SIGTERM, SIGHUP], [Image.spin, Image.idle, Image.chatter])
  func signals(signal: Int32, image: [UInt8]) throws {
    let process = try Kvmlite.start([scratch.file("guest.bin", image)])
    try process.waitForOutput("!")
    process.send(signal)
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(128 + signal))
    let name = [SIGINT: "SIGINT", SIGTERM: "SIGTERM", SIGHUP: "SIGHUP"][signal] ?? ""
    #expect(result.errors.contains("ended by \(name)"))
    #expect(!result.leftProcesses)
  }

  @Test("not by a signal that it was started to ignore, as with nohup")
  func ignoredSignal() throws {
    let script = "trap '' HUP; exec \"$0\" \"$1\""
    let process = try ChildProcess(
      "sh", ["-c", script, Kvmlite.path, scratch.file("guest.bin", Image.slowCopy)], input: .pipe)
    process.type("a")
    try process.waitForOutput("a")
    process.send(SIGHUP)
    process.type("b\0")
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(0))
    #expect(result.output == "ab")
  }

  @Test("by a signal with four VCPUs")
  func signalToMany() throws {
    let process = try Kvmlite.start(["--cpus", "4", scratch.file("guest.bin", Image.spin)])
    try process.waitForOutput("!")
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
  }

  @Test("when its reader closes the pipe: 71, and says so")
  func closedOutput() throws {
    let process = try Kvmlite.start([scratch.file("guest.bin", Image.chatter)])
    try process.waitForOutput("!")
    process.closeOutput()
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(71))
    #expect(result.errors.contains("EPIPE"))
    #expect(!result.leftProcesses)
  }

  @Test("by a signal while a reader that doesn't read holds up the guest")
  func stuckReader() throws {
    let process = try Kvmlite.start([scratch.file("guest.bin", Image.chatter)])
    try process.waitForOutput("!")
    try process.waitUntilOutputIsFull()
    process.send(SIGTERM)
    #expect(try process.waitForEndWithoutReading() == .exited(128 + SIGTERM))
  }

  @Test("when its time is up while a trace holds it up that nobody reads")
  func stuckTrace() throws {
    // The shell has the reading end open.
    let script = """
      mkfifo "$1" && exec 9<>"$1" && "$0" --timeout 0.5 --trace "$2" 2>"$1" >"$1.out"; echo "status $?"
      """
    let shell = try ChildProcess(
      "sh",
      ["-c", script, Kvmlite.path, scratch.path + "/fifo", scratch.file("guest", Image.chatter)])
    #expect(try shell.waitForEnd() == .exited(0))
    #expect(shell.outputText == "status 124\n")
  }

  @Test("when its time is up: 124, and says where the guest stood")
  func timeout() throws {
    for image in [Image.spin, Image.idle] {
      let result = try Kvmlite.run(
        "--timeout", "3", scratch.file("guest.bin", image))
      #expect(result.end == .exited(124))
      #expect(result.output == "!")
      #expect(result.errors.contains("VCPU 0: "))
      #expect(!result.leftProcesses)
    }
  }

  @Test("when a kernel's time is up: says where stock kernels run, if that isn't here")
  func kernelTimeout() throws {
    let result = try Kvmlite.run(
      "--timeout", "3", scratch.file("kernel.bin", Image.multibootSpin))
    #expect(result.end == .exited(124))
    #expect(result.errors.contains("scripts/host") == HostKVM.isPVM)
    #expect(!result.errors.contains("does not boot"))
    let linux = try Kvmlite.run("--timeout", "3", scratch.file("vmlinuz", Image.linuxSpin))
    #expect(linux.end == .exited(124))
    #expect(
      linux.errors.hasPrefix(
        "kvmlite: this host's KVM is kvm_pvm, on which a stock Linux kernel does not boot")
        == HostKVM.isPVM, "\(linux.errors)")
    let plain = try Kvmlite.run("--timeout", "3", scratch.file("guest.bin", Image.spin))
    #expect(!plain.errors.contains("scripts/host"))
  }

  @Test("with standard streams that are closed")
  func closedStreams() throws {
    let script = "\"$0\" \"$1\" <&- >&- 2>&-; echo status $?"
    let process = try ChildProcess("sh", ["-c", script, Kvmlite.path, "guest:hello-real"])
    try process.waitForEnd()
    #expect(process.outputText.contains("status "))
    let echo = try Kvmlite.run("guest:tick", input: .closed)
    #expect(echo.end == .exited(0))
    #expect(echo.output == "..........\n")
  }
}

@Suite("kvmlite passes input on", .needsKVM, .limited, .sameOnEachHost)
struct InputTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  // Any bytes but the zero that ends the copy.
  private static let plenty = (0..<max(5000, Trials.rounds(65536))).map { UInt8(1 + $0 % 251) }

  @Test("64 KiB from a pipe to a slow guest, without losing a byte")
  func pipe() throws {
    let path = try scratch.file("copy.bin", Image.slowCopy)
    let result = try Kvmlite.run(path, input: .bytes(Self.plenty + [0]))
    #expect(result.end == .exited(0))
    #expect(result.outputBytes == Self.plenty)
  }

  @Test("from a file")
  func file() throws {
    let path = try scratch.file("copy.bin", Image.slowCopy)
    let input = try scratch.file("input", Array(Self.plenty.prefix(5000)) + [0])
    let result = try Kvmlite.run(path, input: .file(input))
    #expect(result.end == .exited(0))
    #expect(result.outputBytes == Array(Self.plenty.prefix(5000)))
  }

  @Test("as it is typed")
  func typed() throws {
    let process = try Kvmlite.start(["guest:echo-irq"], input: .pipe)
    try process.waitForOutput("Type,")
    process.type("abc")
    try process.waitForOutput("abc")
    process.type("def")
    try process.waitForOutput("abcdef")
    process.type("q")
    #expect(try process.waitForEnd() == .exited(0))
  }

  @Test("and goes on without any: at its end, from /dev/null, closed")
  func none() throws {
    for input in [ChildProcess.Input.null, .closed, .bytes([])] {
      let process = try Kvmlite.start(["guest:echo"], input: input)
      try process.waitForOutput("Type,")
      process.send(SIGTERM)
      #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
    }
  }
}
