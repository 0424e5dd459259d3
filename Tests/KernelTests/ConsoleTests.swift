import Testing
import TestSupport

/// Work in a guest's shell on a terminal.
@Suite(
  "A Linux shell on the console", .needsKVM, .needsRingZero, .needsKernels, .serialized, .limited)
struct ConsoleTests {
  private func shell(_ terminal: TestTerminal) throws -> ChildProcess {
    let run = try ChildProcess(
      Kvmlite.path, Kernels.linux("cloud", append: "quiet"), terminal: terminal,
      deadline: Deadline(seconds: 200))
    try run.waitForOutput("power off.")
    try run.waitForOutput("# ")
    return run
  }

  @Test("lines can be edited, Ctrl-C goes to the guest, and leaving the shell powers off")
  func edits() throws {
    let terminal = try TestTerminal()
    let before = terminal.mode
    let run = try shell(terminal)
    run.type("echo $((6*8))\u{7F}\u{7F}\u{7F}7))\r")
    try run.waitForOutput("\r\n42")
    run.type("sleep 100000\r")
    run.type("\u{3}")
    run.type("echo after=$?\r")
    try run.waitForOutput("after=130")
    run.type("exit\r")
    #expect(try run.waitForEnd() == .exited(0))
    #expect(terminal.mode == before)
  }

  @Test("64 KiB pasted arrive whole")
  func pastes() throws {
    let run = try shell(try TestTerminal())
    // Without echo: each byte that a software processor echoes takes it several exits.
    run.type("stty -echo; cat > /tmp/paste; wc -c < /tmp/paste\r")
    let line = String(repeating: "x", count: 63) + "\n"
    run.type(String(repeating: line, count: 1024))
    run.type("\u{4}")
    try run.waitForOutput("\r\n65536")
    run.type("exit\r")
    #expect(try run.waitForEnd() == .exited(0))
  }
}
