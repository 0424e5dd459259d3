import Foundation
import TestSupport
import Testing

/// What belongs to a machine's life, from kvmlite's first line to its last.
@Suite("A machine's life", .needsKVM, .limited)
struct LifeTests {
  // MARK: Reset in place

  /// Leaves with 3 if both a byte of CMOS and a word of RAM have a mark; else marks them and resets the
  /// machine.
  private static let marker: [UInt8] = [
    0xB0, 0x50, 0xE6, 0x70,  //                    00: mov al,0x50; out 0x70,al
    0xE4, 0x71,  //                                04: in al,0x71
    0x3C, 0x5A,  //                                06: cmp al,0x5a
    0x75, 0x0D,  //                                08: jne 0x17
    0xB0, 0x03,  //                                0a: mov al,0x3
    0x81, 0x3E, 0x00, 0x80, 0x34, 0x12,  //        0c: cmp WORD PTR ds:0x8000,0x1234
    0x75, 0x01,  //                                12: jne 0x15
    0x40,  //                                      14: inc ax
    0xE6, 0xF4,  //                                15: out 0xf4,al
    0xB0, 0x5A, 0xE6, 0x71,  //                    17: mov al,0x5a; out 0x71,al
    0xC7, 0x06, 0x00, 0x80, 0x34, 0x12,  //        1b: mov WORD PTR ds:0x8000,0x1234
    0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE,  //        21: mov dx,0xcf9; mov al,0x6; out dx,al
    0xFA, 0xF4,  //                                27: cli; hlt
  ]

  @Test("a reset leaves CMOS and RAM as they are")
  func resetKeeps() throws {
    let scratch = try Scratch()
    let image = try scratch.file("marker.bin", Self.marker)
    #expect(try Kvmlite.run(image, "--timeout", "60").end == .exited(4 << 1 | 1))
  }

  @Test("a guest that resets itself again and again costs no descriptor")
  func resetForEver() throws {
    let script = "ulimit -n 40; exec \"$0\" guest:reset"
    let process = try ChildProcess("/bin/sh", ["-c", script, Kvmlite.path])
    try process.waitForOutput("Resetting", times: 20)
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + 15))
  }

  /// Writes `!` and resets the machine.
  private static let resetter: [UInt8] = [
    0xB0, 0x21, 0xE6, 0xE9,  //              00: mov al,0x21; out 0xe9,al
    0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE,  //  04: mov dx,0xcf9; mov al,0x6; out dx,al
    0xFA, 0xF4,  //                          0a: cli; hlt
  ]

  @Test("a reset finds out that its image was written to, and not that another has its name")
  func changedImage() throws {
    let scratch = try Scratch()
    let image = try scratch.file("resetter.bin", Self.resetter)
    let outcome = scratch.path + "/outcome.json"
    let process = try Kvmlite.start([image, "--timeout", "60", "--outcome-file", outcome])
    try process.waitForOutput("!!")
    let other = try scratch.file("other.bin", [0xF4])
    try #require(unsafe rename(other, image) == 0)
    try process.waitForOutput("!", times: process.outputText.count + 3)
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + 15))

    let second = try scratch.file("second.bin", Self.resetter)
    let changing = try Kvmlite.start([second, "--timeout", "60", "--outcome-file", outcome])
    try changing.waitForOutput("!!")
    let file = try FileHandle(forUpdating: URL(filePath: second))
    try file.write(contentsOf: Data([0xB0]))
    let result = try Kvmlite.end(of: changing)
    #expect(result.end == .exited(66) && result.errors.contains(second))
    #expect(try String(contentsOfFile: outcome, encoding: .utf8).contains("input-changed"))
  }

  // MARK: Signals

  @Test("signals find it between two resets")
  func signalsWhileResetting() throws {
    let process = try Kvmlite.start(["guest:reset", "--timeout", "60"])
    for round in 1...Trials.rounds(40) {
      try process.waitForOutput("Resetting", times: round)
      process.send(SIGUSR1)
    }
    process.send(SIGTERM)
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(128 + 15))
    #expect(result.errors.contains("ended by SIGTERM"))
  }

  @Test("a signal and the time limit end it while it opens a file that nobody writes")
  func opening() throws {
    let scratch = try Scratch()
    let fifo = scratch.path + "/fifo"
    #expect(unsafe mkfifo(fifo, 0o600) == 0)
    #expect(try Kvmlite.run(fifo, "--timeout", "0.2").end == .exited(124))
    #expect(try Kvmlite.run("--initrd", fifo, "--timeout", "0.2").end == .exited(124))
  }

  // MARK: Nobody reads

  /// Runs kvmlite with a standard error that is full, and that nobody reads.
  private func startMute(_ arguments: [String], _ scratch: Scratch) throws -> ChildProcess {
    let script =
      "mkfifo \"$0\"; exec 9<>\"$0\"; head -c 65536 /dev/zero >&9; exec \"$@\" 2>&9"
    return try ChildProcess(
      "/bin/sh", ["-c", script, scratch.path + "/fifo", Kvmlite.path] + arguments)
  }

  @Test("the time limit holds though nobody reads standard error", arguments: ["-v", "--trace"])
  func muteTimeLimit(option: String) throws {
    let scratch = try Scratch()
    let process = try startMute([option, "guest:spin", "--timeout", "1"], scratch)
    #expect(try process.waitForEnd() == .exited(124))
  }

  @Test("SIGTERM ends it though nobody reads standard error")
  func muteSignal() throws {
    let scratch = try Scratch()
    let process = try startMute(["--trace"], scratch)
    try process.waitForOutput("H")
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + 15))
  }

  // MARK: What can't be had

  @Test("a thread that can't be started ends it with 71, whatever runs already")
  func noThread() throws {
    // Room for the guest's RAM and for some stacks of 8 MiB, but not for 60.
    let result = try Kvmlite.run(
      ["-c", "ulimit -v 400000; exec \"$0\" -c 60 guest:spin --timeout 60", Kvmlite.path],
      of: "/bin/sh")
    #expect(result.end == .exited(71), "\(result.errors)")
    #expect(result.errors.contains("thread"))
  }

  // MARK: Files about a run

  @Test("how it ended and what was counted, as files")
  func files() throws {
    let scratch = try Scratch()
    let (outcome, counts) = (scratch.path + "/outcome.json", scratch.path + "/counts.json")
    let result = try Kvmlite.run(
      "guest:exit-port", "--outcome-file", outcome, "--stats-file", counts)
    func object(_ path: String) throws -> [String: Any] {
      try #require(
        JSONSerialization.jsonObject(with: Data(contentsOf: URL(filePath: path)))
          as? [String: Any])
    }
    let end = try object(outcome)
    #expect(end["end"] as? String == "exited" && end["value"] as? Int == 3)
    #expect(end["status"] as? Int == 7)
    let exits = try #require(object(counts)["exits"] as? [String: Any])
    #expect(exits["io"] != nil)
    #expect(result.errors.isEmpty)
    #expect(scratch.names == ["counts.json", "outcome.json"])
  }

  @Test("what somebody put at the name of a file in the making stays, and so does what it leads to")
  func plantedLink() throws {
    let scratch = try Scratch()
    let target = try scratch.file("target", Array("mine".utf8))
    // The shell's number becomes kvmlite's.
    let script = "ln -s \"$0\" \"$1.partial-$$\"; exec \"$2\" --trace-file \"$1\""
    let trace = scratch.path + "/trace.json"
    let result = try Kvmlite.run(["-c", script, target, trace, Kvmlite.path], of: "/bin/sh")
    #expect(result.end == .exited(0), "\(result.errors)")
    #expect(try String(contentsOfFile: target, encoding: .utf8) == "mine")
    #expect(FileManager.default.fileExists(atPath: trace))
  }
}
