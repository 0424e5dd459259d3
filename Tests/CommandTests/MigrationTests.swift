import Foundation
import TestSupport
import Testing

/// `kvmlite migrate` and `kvmlite receive`: a machine moves while it runs.
@Suite("Machines that move", .needsKVM, .limited)
struct MigrationTests {
  private let machines: NamedMachines
  init() throws { machines = try NamedMachines() }

  private var socket: String { machines.path + "/move" }

  /// Who waits at `socket` already.
  private func receiver(_ options: String..., input: ChildProcess.Input = .null) throws
    -> ChildProcess
  {
    let process = try machines.start(["receive", "unix:" + socket] + options, input: input)
    try process.waitForErrors("can come")
    return process
  }

  @Test("print everything once, on one side or the other")
  func output() throws {
    let image = try machines.file("count.bin", Image.counting)
    let first = try machines.start(["run", "--name", "box0", image])
    try first.waitForOutput(bytes: 1)
    var lives = [first]
    for number in 0..<3 {
      let next = try receiver("--name", "box\(number + 1)")
      let moved = try machines.run("migrate", "box\(number)", "unix:" + socket)
      #expect(moved.end == .exited(0) && moved.errors.contains("runs there"), "\(moved.errors)")
      #expect(try lives[number].waitForEnd() == .exited(0))
      try next.waitForOutput(bytes: 100)
      lives.append(next)
    }
    lives[3].send(SIGTERM)
    #expect(try lives[3].waitForEnd() == .exited(128 + SIGTERM))
    let wrong = Image.firstWrong(inCounting: lives.flatMap(\.output))
    #expect(wrong == nil, "byte \(wrong ?? 0) of \(lives.map(\.output.count))")
  }

  @Test("take their disks along, which are the other side's then", arguments: ["raw", "qcow2"])
  func disk(kind: String) throws {
    let disk = machines.path + "/disk.\(kind)"
    #expect(try machines.run("disk", "create", "--size", "64K", disk).end == .exited(0))
    let first = try machines.start(
      ["run", "--name", "box", "--disk", disk + ",bus=mmio", "guest:disk-virtio"], input: .pipe)
    first.type("w 7\n")
    try first.waitForOutput("ok\n")

    // A receiver that can't open it leaves the machine where it is.
    try FileManager.default.moveItem(atPath: disk, toPath: disk + ".away")
    let without = try receiver()
    let refused = try machines.run("migrate", "box", "unix:" + socket)
    #expect(
      refused.end == .exited(71) && refused.errors.contains("stays here"), "\(refused.errors)")
    #expect(refused.errors.contains("disk.\(kind)"), "\(refused.errors)")
    #expect(try without.waitForEnd() == .exited(66))
    try FileManager.default.moveItem(atPath: disk + ".away", toPath: disk)
    first.type("w 8\n")
    try first.waitForOutput("ok\nok\n")

    let second = try receiver(input: .pipe)
    let moved = try machines.run("migrate", "box", "unix:" + socket)
    #expect(moved.end == .exited(0), "\(moved.errors)")
    #expect(try first.waitForEnd() == .exited(0))
    second.type("r 7\nr 8\nw 9\nq\n")
    #expect(try second.waitForEnd() == .exited(0))
    #expect(second.outputText == "ok 7\nok 8\nok\n", "\(second.errorText)")
  }

  @Test("stay where they are when the other side is none, lies, ends or stalls")
  func failures() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    let cases = [
      ("unix:" + machines.path + "/nobody", "can't be reached"),
      ("exec:true", "the other side has ended"),
      ("exec:head -c 100000 /dev/zero; cat >/dev/null", "no sense"),
      ("exec:printf '\\003\\005\\000\\000\\000never'; cat >/dev/null", "refuses: never"),
    ]
    for (place, words) in cases {
      let moved = try machines.run("migrate", "box", place)
      #expect(moved.end == .exited(71) && moved.errors.contains(words), "\(place): \(moved.errors)")
    }
    #expect(try machines.run("migrate", "box", "tcp:somewhere:1").end == .exited(64))
    // Who asked for it goes: it isn't asked for any more.
    let stalled = try machines.start([
      "migrate", "box", "exec:echo stalls >&2; exec cat >/dev/null",
    ])
    try stalled.waitForErrors("stalls")
    stalled.send(SIGINT)
    #expect(try stalled.waitForEnd() == .killed(SIGINT))
    guest.type("2")
    try guest.waitForOutput("12")

    // And then it moves all the same, by a command.
    let command = "exec:exec \(Kvmlite.path) receive - --name moved"
    let moved = try machines.run("migrate", "box", command)
    #expect(moved.end == .exited(0), "\(moved.errors)")
    #expect(try guest.waitForEnd() == .exited(0))
    #expect(try machines.state("moved") == "running")
    #expect(try machines.run("kill", "moved").end == .exited(0))
  }

  @Test("aren't received from who sends none")
  func strangers() throws {
    let target = try receiver()
    let stranger = try ChildProcess(
      "python3",
      [
        "-c",
        """
        import socket
        s = socket.socket(socket.AF_UNIX)
        s.connect("\(socket)")
        s.send(b"GET / HTTP/1.1\\r\\n\\r\\n")
        try: s.recv(1)
        except ConnectionResetError: pass
        """,
      ])
    #expect(try stranger.waitForEnd() == .exited(0))
    #expect(try target.waitForEnd() == .exited(65))
    #expect(target.errorText.contains("no machine of kvmlite's"), "\(target.errorText)")
  }

  @Test("stand still, and lose nothing, when the last word is lost; and move by TCP")
  func lostWord() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    // Takes the machine, says that it is ready, and goes when it is told to go on.
    let thief = """
      import struct, sys
      def take(count):
        data = b""
        while len(data) < count: data += sys.stdin.buffer.read(count - len(data))
        return data
      def say(kind):
        sys.stdout.buffer.write(bytes([kind]) + struct.pack("<I", 0))
        sys.stdout.buffer.flush()
      take(14)
      while True:
        kind, count = struct.unpack("<BI", take(5))
        take(count)
        if kind == 1: say(2)
        if kind == 6: say(7)
        if kind == 8: break
      """
    let script = try machines.file("thief.py", Array(thief.utf8))
    let lost = try machines.run("migrate", "box", "exec:exec python3 \(script)")
    #expect(lost.end == .exited(71) && lost.errors.contains("stands still here"), "\(lost.errors)")
    #expect(try machines.state("box") == "paused")
    #expect(try machines.run("resume", "box").end == .exited(0))
    guest.type("2")
    try guest.waitForOutput("12")

    let port = try Kvmlite.run(
      ["-c", "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"],
      of: "python3"
    ).output.filter(\.isNumber)
    let target = try machines.start(["receive", "tcp:" + port], input: .pipe)
    try target.waitForErrors("can come")
    let moved = try machines.run("migrate", "box", "tcp:127.0.0.1:" + port)
    #expect(moved.end == .exited(0), "\(moved.errors)")
    target.type("3q")
    #expect(try target.waitForEnd() == .exited(0) && target.outputText.hasPrefix("3"))
  }
}
