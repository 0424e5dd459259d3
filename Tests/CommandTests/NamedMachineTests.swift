import Foundation
import TestSupport
import Testing

@Suite("A machine with a name", .needsKVM, .limited)
struct NamedMachineTests {
  @Test("is started, seen, held, ended and forgotten")
  func life() throws {
    let machines = try NamedMachines()
    #expect(try machines.run("ls").errors.contains("kvmlite up"))
    let image = try machines.file("idle.bin", Image.idle)
    let up = try machines.run("up", "--name", "web", "-c", "2", image)
    #expect(up.end == .exited(0) && up.output == "web\n" && up.errors.isEmpty)
    let status = try #require(try machines.list()["web"])
    #expect(status["state"] as? String == "running" && status["vcpus"] as? Int == 2)
    #expect(status["memory_bytes"] as? Int == 128 << 20)
    let table = try machines.run("ls").output.split(separator: "\n")
    #expect(table.count == 2 && table[1].hasPrefix("web   running"))
    let account = try machines.run("inspect", "web").output
    #expect(account.contains(image) && account.contains("control.sock"))
    #expect(try machines.run("stats", "web").output.contains("kvm exits"))

    #expect(try machines.run("pause", "web").end == .exited(0))
    #expect(try machines.state("web") == "paused")
    #expect(try machines.run("resume", "web").end == .exited(0))
    #expect(try machines.state("web") == "running")
    #expect(try machines.run("reset", "web").end == .exited(0))
    #expect(try machines.run("wait", "web", "--for", "text=!!").end == .exited(0))

    let stop = try machines.run("stop", "web", "--grace", "0")
    #expect(stop.end == .exited(0) && stop.errors.contains("switched off"))
    #expect(try machines.state("web") == "ended")
    #expect(try machines.run("logs", "web").output == "!!")
    let removed = try machines.run("rm", "web")
    #expect(removed.output.contains("spec.json") && !removed.output.contains(image))
    #expect(try machines.names().isEmpty && FileManager.default.fileExists(atPath: image))
  }

  @Test(
    "is known by what it was, and runs again in the foreground or the background", .sameOnEachHost)
  func again() throws {
    let machines = try NamedMachines()
    #expect(try machines.run("run", "--name", "a", "guest:hello-real").output.contains("Hello"))
    #expect(try machines.run("up", "a").end == .exited(0))
    #expect(try machines.run("wait", "a").end == .exited(0))
    #expect(try machines.run("run", "--name", "a").end == .exited(0))
    let hellos = try machines.run("logs", "a").output.split(separator: "\n")
    #expect(hellos.count == 3)
    #expect(try machines.run("up", "a", "-m", "64M").end == .exited(75))
    let refused = try machines.run("up", "--name", "a", "guest:tick")
    #expect(refused.end == .exited(75) && refused.errors.contains("kvmlite rm a"))
    #expect(try machines.run("up", "guest:hello-real").output == "hello-real\n")
    #expect(try machines.run("up", "guest:hello-real").output == "hello-real-2\n")
  }

  @Test("that can't be started leaves nothing", .sameOnEachHost)
  func noStart() throws {
    let machines = try NamedMachines()
    #expect(try machines.run("up", "--name", "a", "/nothing").end == .exited(66))
    let text = try machines.file("a.txt", Array("hello, this is no image\n".utf8))
    #expect(try machines.run("up", text).end == .exited(65))
    #expect(try machines.names().isEmpty)
    #expect(try machines.run("up", "--name", "a", "guest:hello-real").end == .exited(0))
    #expect(try machines.run("up", "--trace", "guest:hello-real").end == .exited(64))
    #expect(try machines.run("up", "--name", "a/b").end == .exited(64))
  }

  @Test("refuses what can't be, with what to do", .sameOnEachHost)
  func refusals() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "spin", "guest:spin")
    for verb in ["pause", "attach", "logs", "rm", "wait", "stats", "inspect", "stop", "kill"] {
      let result = try machines.run(verb, "spin2")
      #expect(result.end == .exited(66) && result.errors.contains("did you mean 'spin'"))
    }
    let taken = try machines.run("up", "spin")
    #expect(taken.end == .exited(75) && taken.errors.contains("attach spin"))
    #expect(try machines.run("rm", "spin").end == .exited(75))
    let resumed = try machines.run("resume", "spin")
    #expect(resumed.end == .exited(75) && resumed.errors.contains("isn't paused"))
    #expect(try machines.run("kill", "spin").end == .exited(0))
    let ended = try machines.run("pause", "spin")
    #expect(ended.end == .exited(66) && ended.errors.contains("kvmlite up spin"))
  }

  @Test("belongs to one of those who start it at once")
  func race() throws {
    let machines = try NamedMachines()
    for round in 0..<Trials.rounds(5) {
      let name = "m\(round)"
      let starts = try (0..<6).map { _ in try machines.start(["up", "--name", name, "guest:spin"]) }
      let ends = try starts.map { try Kvmlite.end(of: $0).end }
      #expect(ends.filter { $0 == .exited(0) }.count == 1)
      #expect(ends.filter { $0 == .exited(75) }.count == 5)
    }
  }

  @Test("that was killed is shown as such, and isn't in its own way")
  func killed() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "a", "guest:echo")
    let viewer = try machines.start(["attach", "a"])
    try viewer.waitForOutput("Ctrl-D")
    kill(try machines.process("a"), SIGKILL)
    #expect(try Kvmlite.end(of: viewer).end == .exited(137))
    #expect(try machines.run("ls").output.contains("ended: killed"))
    #expect(try machines.run("up", "a").end == .exited(0))
    #expect(try machines.state("a") == "running")
  }

  @Test("starts paused, and is resumed")
  func paused() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--paused", "--name", "a", "guest:hello-real")
    #expect(try machines.state("a") == "paused")
    #expect(try machines.run("logs", "a").output.isEmpty)
    let waiting = try machines.start(["wait", "a"])
    try machines.run("resume", "a")
    #expect(try Kvmlite.end(of: waiting).end == .exited(0))
    #expect(try machines.run("logs", "a").output.contains("Hello"))
    #expect(try machines.run("run", "--paused").end == .exited(64))
  }
}

@Suite("A named machine's console", .needsKVM, .limited, .sameOnEachHost)
struct NamedConsoleTests {
  @Test("is shown to several, who may all type, and to who comes later")
  func viewers() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "e", "guest:echo")
    let one = try machines.start(["attach", "e"], input: .pipe)
    let other = try machines.start(["attach", "e"], input: .pipe)
    try one.waitForOutput("Ctrl-D")
    try other.waitForOutput("Ctrl-D")
    one.type("left")
    try one.waitForOutput("left")
    other.type("right")
    try other.waitForOutput("leftright")
    try one.waitForOutput("leftright")
    let late = try machines.start(["attach", "e"], input: .pipe)
    try late.waitForOutput("leftright")
    late.type("q")
    for viewer in [late, one, other] {
      #expect(try Kvmlite.end(of: viewer).errors.contains("e has ended: halted"))
    }
    #expect(try machines.run("logs", "e").output.contains("leftright"))
  }

  @Test("is left by Ctrl-A Q, and what was missed is shown to who comes back")
  func leaving() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "e", "guest:echo")
    let terminal = try TestTerminal()
    let mode = terminal.mode
    let first = try ChildProcess(
      Kvmlite.path, ["attach", "e"], terminal: terminal, environment: machines.environment)
    try first.waitForOutput("Ctrl-D")
    #expect(terminal.isRaw)
    first.type("\u{1}h")
    try first.waitForOutput("leave the machine to itself")
    first.type("one")
    try first.waitForOutput("one")
    first.type("\u{1}q")
    #expect(try first.waitForEnd() == .exited(0) && terminal.mode == mode)
    #expect(try machines.state("e") == "running")
    let typist = try machines.start(["attach", "e"], input: .bytes(Array("two".utf8)))
    try typist.waitForOutput("two")
    typist.send(SIGTERM)
    _ = try typist.waitForEnd()
    let back = try machines.start(["attach", "e"])
    try back.waitForOutput("onetwo")
  }

  @Test("is waited for, from its start on")
  func waiting() throws {
    let machines = try NamedMachines()
    let image = try machines.file("idle.bin", Image.idle)
    try machines.run("up", "--name", "i", image)
    #expect(try machines.run("wait", "i", "--for", "text=!").end == .exited(0))
    #expect(try machines.run("wait", "i", "--for", "running").end == .exited(0))
    for event in ["text=?", "exit"] {
      #expect(try machines.run("wait", "i", "--for", event, "--timeout", "0").end == .exited(124))
    }
    let waiting = try machines.start(["wait", "i", "--for", "text=?"])
    try machines.run("kill", "i")
    #expect(try Kvmlite.end(of: waiting).end == .exited(66))
    #expect(try machines.run("wait", "i", "--for", "soon").end == .exited(64))
    let exiting = try machines.file("exit.bin", [0xB0, 0x15, 0xE6, 0xF4])
    try machines.run("up", "--name", "x", exiting)
    #expect(try machines.run("wait", "x").end == .exited(0x15 << 1 | 1))
  }

  @Test("goes on where its files can't grow, and says so")
  func full() throws {
    let machines = try NamedMachines()
    let image = try machines.file("chatter.bin", Image.chatter)
    let up = try machines.run(["up", "--name", "c", image], after: "ulimit -f 64")
    #expect(up.end == .exited(0), "\(up.errors)")
    let viewer = try machines.start(["logs", "-f", "c"])
    try viewer.waitForOutput(bytes: 100_000)
    let words = machines.path + "/state/kvmlite/c/kvmlite.log"
    #expect(try String(contentsOfFile: words, encoding: .utf8).contains("can't be kept"))
    #expect(try machines.state("c") == "running")
  }
}

@Suite(
  "The directories of named machines", .needsKVM, .limited,
  .sameOnEachHost)
struct NamedPlacesTests {
  private func up(
    _ change: (NamedMachines, String) throws -> Void, status: Int32, words: String
  ) throws {
    let machines = try NamedMachines()
    let runtime = machines.path + "/run/kvmlite"
    try change(machines, runtime)
    let result = try machines.run("up", "--name", "a", "guest:hello-real")
    #expect(result.end == .exited(status), "\(result.errors)")
    #expect(result.errors.contains(words), "\(result.errors)")
  }

  private func make(_ path: String, _ mode: Int = 0o700) throws {
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: mode])
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
  }

  @Test("aren't used where others have rights to them")
  func open() throws {
    try up({ _, path in try make(path, 0o777) }, status: 77, words: "chmod 700")
  }

  @Test("aren't used where they are somebody else's", .enabled(if: getuid() == 0, "needs root"))
  func foreign() throws {
    try up(
      { _, path in
        try make(path)
        unsafe chown(path, 12345, 12345)
      }, status: 77, words: "12345")
  }

  @Test("aren't followed where they are links, nor made where there is a file")
  func links() throws {
    try up(
      { machines, path in
        try make(machines.path + "/elsewhere")
        try make(machines.path + "/run")
        unsafe symlink(machines.path + "/elsewhere", path)
      }, status: 71, words: "is no directory")
  }

  @Test(
    "may have been opened to others: a machine obeys none of them",
    .enabled(if: getuid() == 0, "needs root"))
  func otherUser() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "a", "guest:spin")
    let opened = try ChildProcess("chmod", ["-R", "a+rwX", machines.path])
    #expect(try opened.waitForEnd() == .exited(0))
    let other = try Kvmlite.end(
      of: ChildProcess(
        "setpriv", ["--reuid", "65534", "--clear-groups", Kvmlite.path, "pause", "a"],
        environment: machines.environment))
    #expect(other.end == .exited(75) && other.errors.contains("another user"), "\(other.errors)")
    #expect(try machines.state("a") == "running")
  }

  @Test("have a name that a socket can have")
  func long() throws {
    let machines = try NamedMachines()
    let long = machines.path + "/" + String(repeating: "x", count: 100)
    let result = try machines.run(
      ["up", "--name", "a", "guest:hello-real"], after: "export XDG_RUNTIME_DIR=\(long)")
    #expect(result.end == .exited(71) && result.errors.contains("XDG_RUNTIME_DIR"))
  }

  @Test("may be full: then nothing starts, and nothing is left")
  func full() throws {
    let machines = try NamedMachines()
    let result = try machines.run(
      ["up", "--name", "a", "guest:hello-real"], after: "ulimit -f 0")
    #expect(result.end == .exited(71) && result.errors.contains("spec.json"), "\(result.errors)")
    #expect(try machines.names().isEmpty)
  }

  @Test("complete the names of verbs")
  func completion() throws {
    let machines = try NamedMachines()
    try machines.run("up", "--name", "web", "guest:hello-real")
    for line in [["attach", "w"], ["up", "w"], ["up", "--name", "w"]] {
      let result = try Kvmlite.end(of: machines.start(["__complete"] + line))
      #expect(result.output.hasPrefix("web"), "\(line)")
    }
  }
}

@Suite("Many hands on named machines", .needsKVM, .limited, .sameOnEachHost)
struct NamedChaosTests {
  @Test("leave no process, no lock, no socket, and no lie in ls")
  func chaos() throws {
    let machines = try NamedMachines()
    let names = ["a", "b", "c"]
    var random = SplitMix(14)
    // 1,000 verbs and more take KVMLITE_ROUNDS=250.
    let long = ProcessInfo.processInfo.environment["KVMLITE_ROUNDS"].flatMap(Int.init)
    for _ in 0..<(long ?? Trials.rounds(60)) {
      let clients = try (0..<4).map { _ in
        let verb = try #require(Self.verbs.randomElement(using: &random))
        let name = try #require(names.randomElement(using: &random))
        return try machines.start(verb + [name])
      }
      for client in clients {
        let end = try client.waitForEnd()
        #expect(
          Self.statuses.contains { end == .exited($0) }, "\(end): \(client.errorText)")
      }
    }
    for (name, machine) in try machines.list() {
      if let process = machine["pid"] as? Int { #expect(kill(pid_t(process), 0) == 0) }
      #expect(machine["state"] as? String != "busy")
      #expect(try machines.run("rm", "--force", name).end == .exited(0))
    }
    let left = FileManager.default.enumerator(atPath: machines.path + "/run/kvmlite")
    #expect(left?.allObjects.isEmpty == true)
    let processes = try ChildProcess("pgrep", ["-f", "^" + Kvmlite.path + ".* --name [abc]$"])
    _ = try processes.waitForEnd()
    #expect(processes.outputText.isEmpty)
  }

  private static let verbs = [
    ["up", "guest:spin", "--name"], ["up", "guest:tick", "--name"], ["up"], ["pause"], ["resume"],
    ["reset"], ["stop", "--grace", "0"], ["kill"], ["rm"], ["rm", "--force"], ["inspect"],
    ["stats"], ["logs"], ["wait", "--timeout", "0"],
  ]

  /// Those of the table: done, no such machine, busy, time is up, and for `wait` of one that was killed
  /// in the middle 128 and SIGKILL.
  private static let statuses: [Int32] = [0, 66, 75, 124, 137]
}
