import Foundation
import TestSupport
import Testing

@Suite("On a terminal kvmlite", .needsKVM, .limited)
struct TerminalTests {
  private let scratch: Scratch
  private let terminal: TestTerminal
  private let modeBefore: String

  init() throws {
    scratch = try Scratch()
    terminal = try TestTerminal()
    modeBefore = terminal.mode
  }

  private func start(_ arguments: [String]) throws -> ChildProcess {
    try ChildProcess(Kvmlite.path, arguments, terminal: terminal)
  }

  /// Writes what it reads from COM1, one byte as two hexadecimal digits would be too long: plus 0x40.
  private static let showKeys: [UInt8] = [
    0xB0, 0x21,  //       00: mov al,0x21
    0xE6, 0xE9,  //       02: out 0xe9,al
    0xBA, 0xFD, 0x03,  // 04: mov dx,0x3fd
    0xEC,  //             07: in al,dx
    0xA8, 0x01,  //       08: test al,0x1
    0x74, 0xFB,  //       0a: je 0x7
    0xBA, 0xF8, 0x03,  // 0c: mov dx,0x3f8
    0xEC,  //             0f: in al,dx
    0x04, 0x40,  //       10: add al,0x40
    0xE6, 0xE9,  //       12: out 0xe9,al
    0xEB, 0xEE,  //       14: jmp 0x4
  ]

  @Test("is raw while the guest runs, which gets Ctrl-C, and Ctrl-A X leaves with 0")
  func session() throws {
    let process = try start([scratch.file("keys.bin", Self.showKeys)])
    try process.waitForOutput("!")
    #expect(terminal.isRaw)
    process.type([3])  // Ctrl-C
    try process.waitForOutput("!C")
    process.type([26, 13])  // Ctrl-Z, Enter
    try process.waitForOutput("!CZM")
    process.type([1, 1])  // Ctrl-A twice: one for the guest
    try process.waitForOutput("!CZMA")
    process.type([1] + Array("h".utf8))
    try process.waitForOutput("Ctrl-A X       leave kvmlite")
    process.type([1] + Array("w".utf8))
    try process.waitForOutput("nothing to look at: give addresses by --walk")
    process.type([1] + Array("x".utf8))
    #expect(try process.waitForEnd() == .exited(0))
    #expect(terminal.mode == modeBefore)
  }

  @Test("saves the machine at Ctrl-A P, which goes on")
  func saves() throws {
    let folder = scratch.path + "/saved"
    let process = try start([
      "--save-at-exit", folder, scratch.file("keys.bin", Self.showKeys),
    ])
    try process.waitForOutput("!")
    process.type([1] + Array("p".utf8))
    try process.waitForOutput("kvmlite restore \(folder) goes on")
    #expect(FileManager.default.fileExists(atPath: folder + "/state"))
    process.type([3])
    try process.waitForOutput("C")
    process.send(SIGKILL)
    _ = try process.waitForEnd()
    let again = try start(["restore", folder])
    again.type([26])
    try again.waitForOutput("Z")
    again.type([1] + Array("x".utf8))
    #expect(try again.waitForEnd() == .exited(0))
  }

  @Test("starts a line for each line of a trace, between the guest's bytes")
  func trace() throws {
    let process = try start(["--trace=io", "guest:hello-real"])
    #expect(try process.waitForEnd() == .exited(0))
    let lines = process.outputText.split(separator: "\r\n")
    #expect(lines.count { $0.count == 1 } == "Hello from real mode!".count)
    #expect(lines.count { $0.hasPrefix("    0.") && $0.contains(" uart ") } == 22)
  }

  @Test("leaves by Ctrl-A X even if the guest reads nothing")
  func deafGuest() throws {
    let process = try start([scratch.file("spin.bin", Image.spin)])
    try process.waitForOutput("!")
    process.type(Array(repeating: UInt8(ascii: "."), count: 300) + [1] + Array("X".utf8))
    #expect(try process.waitForEnd() == .exited(0))
    #expect(terminal.mode == modeBefore)
  }

  @Test("is raw again when it goes on after a stop, whatever a shell did to it meanwhile")
  func foreground() throws {
    let process = try start([scratch.file("keys.bin", Self.showKeys)])
    try process.waitForOutput("!")
    process.send(SIGSTOP)
    terminal.makeCooked()
    process.send(SIGCONT)
    let deadline = Deadline()
    while !terminal.isRaw, !deadline.isOver { sched_yield() }
    process.type([3])  // Ctrl-C
    try process.waitForOutput("!C")
    process.type([1] + Array("x".utf8))
    #expect(try process.waitForEnd() == .exited(0))
    #expect(terminal.mode == modeBefore)
  }

  @Test("puts the mode back after a signal", arguments: [SIGINT, SIGTERM, SIGHUP])
  func signal(number: Int32) throws {
    let process = try start([scratch.file("spin.bin", Image.spin)])
    try process.waitForOutput("!")
    #expect(terminal.isRaw)
    process.send(number)
    #expect(try process.waitForEnd() == .exited(128 + number))
    #expect(terminal.mode == modeBefore)
  }

  @Test(
    "puts the mode back after a signal that it doesn't wait for", arguments: [SIGUSR2, SIGALRM])
  func otherSignal(number: Int32) throws {
    let process = try start([scratch.file("spin.bin", Image.spin)])
    try process.waitForOutput("!")
    process.send(number)
    #expect(try process.waitForEnd() == .killed(number))
    #expect(terminal.mode == modeBefore)
  }

  @Test("puts the mode back after a signal that comes on a VCPU's thread")
  func signalOfThread() throws {
    let process = try start([scratch.file("spin.bin", Image.spin)])
    try process.waitForOutput("!")
    let tasks = "/proc/\(process.identifier)/task"
    let thread = try #require(
      FileManager.default.contentsOfDirectory(atPath: tasks).first {
        try String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8) == "vcpu0\n"
      })
    let program =
      "import ctypes; ctypes.CDLL(None).syscall(234, \(process.identifier), \(thread), 14)"
    #expect(try Kvmlite.run(["-c", program], of: "python3").end == .exited(0))
    #expect(try process.waitForEnd() == .killed(SIGALRM))
    #expect(terminal.mode == modeBefore)
  }

  @Test("puts the mode back after a crash, a timeout and an ordinary end")
  func ends() throws {
    let stray = try scratch.file("stray.bin", Image.stray)
    let ends: [([String], Int32)] = [
      (["--mode", "protected", stray], 70), (["guest:spin", "--timeout", "0.2"], 124),
      (["guest:hello-real"], 0), (["guest:triple-fault"], 70), (["/no/such"], 66),
    ]
    for (arguments, status) in ends {
      #expect(try start(arguments).waitForEnd() == .exited(status), "\(arguments)")
      #expect(terminal.mode == modeBefore, "\(arguments)")
    }
  }

  @Test("leaves the terminal alone if the input isn't one")
  func inputElsewhere() throws {
    let process = try ChildProcess(
      "sh",
      ["-c", "exec \"$0\" \"$1\" < /dev/null", Kvmlite.path]
        + [try scratch.file("spin.bin", Image.spin)], terminal: terminal)
    try process.waitForOutput("!")
    #expect(!terminal.isRaw)
    process.type([3])
    #expect(try process.waitForEnd() == .exited(128 + SIGINT))
  }
}
