import Foundation
import TestSupport
import Testing

/// `kvmlite save` and `kvmlite restore`: a machine's life in several processes.
@Suite("Saved machines", .needsKVM, .limited)
struct SaveTests {
  private let machines: NamedMachines
  init() throws { machines = try NamedMachines() }

  private var folder: String { machines.path + "/saved" }
  private var names: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: machines.path).sorted() }
  }

  /// A machine with a disk of this kind whose guest has said that it wrote sector 7; and its disk.
  private func writer(
    _ kind: String, name: String = "box", options: String = ""
  ) throws -> (ChildProcess, disk: String) {
    let disk = machines.path + "/\(name).\(kind)"
    #expect(try machines.run("disk", "create", "--size", "64K", disk).end == .exited(0))
    let guest = try machines.start(
      ["run", "--name", name, "--disk", disk + ",bus=mmio" + options, "guest:disk-virtio"],
      input: .pipe)
    guest.type("w 7\n")
    try guest.waitForOutput("ok\n")
    return (guest, disk)
  }

  /// What a restored machine says to these lines, and how it ends.
  private func restore(_ lines: String, _ options: String...) throws -> Kvmlite.Result {
    try Kvmlite.end(
      of: machines.start(["restore", folder] + options, input: .bytes(Array(lines.utf8))))
  }

  @Test("go on in another process, with their disks", arguments: ["raw", "qcow2"])
  func disk(kind: String) throws {
    let (guest, disk) = try writer(kind)
    let saved = try machines.run("save", "box", folder, "--stop")
    #expect(saved.end == .exited(0), "\(saved.errors)")
    #expect(try guest.waitForEnd() == .exited(0) && guest.outputText == "ok\n")
    #expect(try names.filter { $0.contains("saving") }.isEmpty)
    let memory = try FileManager.default.attributesOfItem(atPath: folder + "/memory")
    #expect(memory[.posixPermissions] as? Int == 0o400)

    // As often as its disk isn't written to.
    for _ in 0..<2 {
      let first = try restore("r 7\nq\n", "--verify")
      #expect(first.end == .exited(0) && first.output == "ok 7\n", "\(first.errors)")
    }
    #expect(try restore("w 8\nq\n").output == "ok\n")
    let changed = try restore("r 7\nq\n")
    #expect(changed.end == .exited(65) && changed.errors.contains("disk0: \(disk) isn't as it was"))
  }

  @Test("go on where they are, and are saved again over what is there")
  func again() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    for text in ["2", "3"] {
      #expect(try machines.run("save", "box", folder).end == .exited(0))
      guest.type(text)
      try guest.waitForOutput(text)
    }
    guest.type("q")
    #expect(try guest.waitForEnd() == .exited(0))
    // The second save's: `2` had been echoed, and isn't again.
    let restored = try restore("4q")
    #expect(restored.end == .exited(0) && restored.output.hasPrefix("4"), "\(restored.output)")
    #expect(guest.outputText.hasSuffix("123" + restored.output.dropFirst()))
  }

  /// Leaves with 5, and if it goes on after that prints `B` and leaves with 6.
  private static let leaving: [UInt8] = [
    0xB0, 0x05,  // 00: mov al,0x5
    0xE6, 0xF4,  // 02: out 0xf4,al
    0xB0, 0x42,  // 04: mov al,0x42
    0xE6, 0xE9,  // 06: out 0xe9,al
    0xB0, 0x06,  // 08: mov al,0x6
    0xE6, 0xF4,  // 0a: out 0xf4,al
  ]

  @Test("are saved at a run's end, if they can go on after it")
  func atExit() throws {
    let image = machines.path + "/leaving.bin"
    try Data(Self.leaving).write(to: URL(fileURLWithPath: image))
    let left = try machines.run("run", "--save-at-exit", folder, image)
    #expect(left.end == .exited(11) && left.output.isEmpty, "\(left.errors)")
    #expect(left.errors.contains("kvmlite restore \(folder)"))
    let went = try restore("")
    #expect(went.end == .exited(13) && went.output == "B", "\(went.errors)")

    let guest = try machines.start(
      ["run", "--save-at-exit", folder, "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    guest.send(SIGTERM)
    #expect(try guest.waitForEnd() == .exited(128 + SIGTERM))
    let restored = try restore("4q")
    #expect(restored.end == .exited(0) && restored.output.hasPrefix("4"), "\(restored.output)")

    // Nothing goes on after these.
    let halted = try machines.run("run", "--save-at-exit", machines.path + "/none")
    #expect(halted.end == .exited(0) && halted.errors.contains("not saved"), "\(halted.errors)")
    let other = try machines.run("run", "--save-at-exit", machines.path)
    #expect(other.end == .exited(64) && other.errors.contains("give another name"))
    #expect(try names.allSatisfy { !$0.contains("none") && !$0.contains("saving") })
  }

  @Test("are saved after a crash, or when their time is over, to be looked at")
  func onCrash() throws {
    let crashed = try machines.run(
      "run", "--save-on-crash", folder, "guest:triple-fault", "--no-reboot")
    let ended = try machines.run(
      "run", "--timeout", "0.2", "--save-on-crash", machines.path + "/hung", "guest:spin")
    #expect(ended.end == .exited(124), "\(ended.errors)")
    #expect(crashed.errors.contains("saved: "), "\(crashed.errors)")
    for path in [folder, machines.path + "/hung"] {
      let state = try Data(contentsOf: URL(fileURLWithPath: path + "/state"))
      #expect(state.range(of: Data("\"end\":".utf8)) != nil)
    }
    let still = try machines.run("restore", machines.path + "/hung", "--timeout", "0.2")
    #expect(still.end == .exited(124), "\(still.errors)")
  }

  @Test("lose nothing of what they print, and print nothing twice")
  func output() throws {
    let image = try machines.file("count.bin", Image.counting)
    let first = try machines.start(["run", "--name", "box", image])
    try first.waitForOutput(bytes: 1)
    let saved = try machines.run("save", "box", folder, "--stop")
    #expect(saved.end == .exited(0), "\(saved.errors)")
    #expect(try first.waitForEnd() == .exited(0))
    let second = try machines.start(["restore", folder])
    try second.waitForOutput(bytes: 1000)
    second.send(SIGTERM)
    #expect(try second.waitForEnd() == .exited(128 + SIGTERM))
    let wrong = Image.firstWrong(inCounting: first.output + second.output)
    #expect(wrong == nil, "byte \(wrong ?? 0) of \(first.output.count) and \(second.output.count)")
  }

  @Test("end with 71 when the file under their memory is cut")
  func cutBelow() throws {
    let first = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    first.type("1")
    try first.waitForOutput("1")
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))
    let second = try machines.start(["restore", folder], input: .pipe)
    second.type("2")
    try second.waitForOutput("2")
    #expect(unsafe truncate(folder + "/memory", 0) == 0 || getuid() != 0)
    second.type("3")
    #expect(try second.waitForEnd() == .exited(71) && !second.errorText.isEmpty)
  }

  @Test("have a name, and are saved in their second life")
  func named() throws {
    let first = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    first.type("1")
    try first.waitForOutput("1")
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))
    let second = try machines.start(["restore", folder, "--name", "other"], input: .pipe)
    second.type("2")
    try second.waitForOutput("2")
    #expect(try machines.run("save", "other", folder, "--stop").end == .exited(0))
    #expect(try second.waitForEnd() == .exited(0) && second.outputText == "2")
    #expect(try restore("3q").output.hasPrefix("3"))
  }

  @Test("are refused when they are damaged", arguments: [false, true])
  func damaged(isCut: Bool) throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))
    func change(_ name: String, _ body: (FileHandle) throws -> Void) throws {
      let path = folder + "/" + name
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
      let file = try FileHandle(forUpdating: URL(filePath: path))
      try body(file)
      try file.close()
    }
    try change("memory") { file in
      if isCut { return try file.truncate(atOffset: 1 << 20) }
      try file.seek(toOffset: 0x5_0000)
      try file.write(contentsOf: [1])
    }
    let memory = try isCut ? restore("q") : restore("q", "--verify")
    #expect(
      memory.end == .exited(65) && memory.errors.contains("its memory at"), "\(memory.errors)")
    try change("state") { file in
      if isCut { return try file.truncate(atOffset: 1000) }
      try file.seek(toOffset: 1000)
      try file.write(contentsOf: [0, 0, 0, 0])
    }
    let state = try restore("q")
    #expect(state.end == .exited(65) && state.errors.contains("is damaged"), "\(state.errors)")
    try change("state") { try $0.truncate(atOffset: 0) }
    #expect(try restore("q").errors.contains("this is no saved machine"))
  }

  @Test("are refused where nothing could be restored, or something would be lost")
  func refusals() throws {
    let (volatile, _) = try writer("raw", name: "volatile", options: ",snapshot")
    let snapshot = try machines.run("save", "volatile", folder)
    #expect(snapshot.end == .exited(64) && snapshot.errors.contains("disk0"), "\(snapshot.errors)")
    volatile.type("q\n")
    #expect(try volatile.waitForEnd() == .exited(0))
    let (guest, _) = try writer("raw")
    let taken = try machines.run("save", "box", machines.path)
    #expect(taken.end == .exited(64) && taken.errors.contains("no saved machine"))
    let nowhere = try machines.run("save", "box", machines.path + "/none/saved")
    #expect(nowhere.end == .exited(66))
    #expect(try names.filter { $0.contains("sav") }.isEmpty)
    let none = try restore("q")
    #expect(none.end == .exited(66) && none.errors.contains("can't be read"))
    // It goes on all the while.
    guest.type("r 7\nq\n")
    #expect(try guest.waitForEnd() == .exited(0) && guest.outputText == "ok\nok 7\n")
  }

  /// How much of a file is on disk, in bytes.
  private func space(_ path: String) throws -> Int {
    var status = stat()
    try #require(unsafe stat(path, &status) == 0)
    return Int(status.st_blocks) * 512
  }

  @Test("are made onto others, which they need until they are flattened")
  func onto() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    let folders = (0..<3).map { "\(machines.path)/saved\($0)" }
    for number in 0..<3 {
      guest.type("\(number)")
      try guest.waitForOutput("\(number)")
      let onto = number == 0 ? [] : ["--onto", folders[number - 1] + "/"]
      let saved = try Kvmlite.end(of: machines.start(["save", "box", folders[number]] + onto))
      #expect(saved.end == .exited(0), "\(saved.errors)")
    }
    guest.type("q")
    #expect(try guest.waitForEnd() == .exited(0))
    #expect(try space(folders[2] + "/memory") < space(folders[0] + "/memory"))
    // As one, they may be anywhere.
    let elsewhere = machines.path + "/moved"
    try FileManager.default.createDirectory(atPath: elsewhere, withIntermediateDirectories: false)
    for number in 0..<3 {
      try FileManager.default.moveItem(
        atPath: folders[number], toPath: elsewhere + "/saved\(number)")
    }
    let last = elsewhere + "/saved2"
    func restore(_ options: String...) throws -> Kvmlite.Result {
      try Kvmlite.end(
        of: machines.start(["restore", last] + options, input: .bytes(Array("3q".utf8))))
    }
    #expect(try restore("--verify").output.hasPrefix("3"))
    let told = try machines.run("inspect", last)
    #expect(told.output.contains("../saved1") && told.output.contains("../saved0"))

    let (first, away) = (elsewhere + "/saved0", elsewhere + "/away")
    try FileManager.default.moveItem(atPath: first, toPath: away)
    let missing = try restore()
    #expect(missing.end == .exited(66) && missing.errors.contains(first), "\(missing.errors)")
    let incomplete = try machines.run("inspect", last)
    #expect(incomplete.end == .exited(66) && incomplete.output.contains("../saved1"))
    #expect(try machines.run("save", "--flatten", last).end == .exited(66))
    try FileManager.default.moveItem(atPath: away, toPath: first)
    let flat = try machines.run("save", "--flatten", last)
    #expect(flat.end == .exited(0), "\(flat.errors)")
    try FileManager.default.removeItem(atPath: first)
    #expect(try restore("--verify").output.hasPrefix("3"))
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: elsewhere).sorted()
        == ["saved1", "saved2"])
  }

  @Test("are refused onto what is no good for it, before anything is made")
  func ontoRefusals() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    let base = folder + "-base"
    let newer = folder + "-newer"
    func save(_ name: String, _ folder: String, onto base: String) throws -> Kvmlite.Result {
      try machines.run("save", name, folder, "--onto", base)
    }
    #expect(try save("box", folder, onto: base).end == .exited(66))
    #expect(try machines.run("save", "box", base).end == .exited(0))
    #expect(try save("box", newer, onto: base).end == .exited(0))
    for needed in [base, newer] {
      let result = try save("box", needed, onto: newer)
      #expect(result.end == .exited(64) && result.errors.contains("needs it"), "\(result.errors)")
    }
    let other = try machines.start(
      ["run", "-m", "2M", "--name", "other", "guest:echo-irq"], input: .pipe)
    other.type("1")
    try other.waitForOutput("1")
    let larger = try save("other", folder, onto: base)
    #expect(
      larger.end == .exited(64) && larger.errors.contains("of a machine with 128 MiB of memory"),
      "\(larger.errors)")
    // Of a machine that is as large, it is only no help.
    let state = base + "/state"
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: state)
    let file = try FileHandle(forUpdating: URL(filePath: state))
    try file.truncate(atOffset: 100)
    try file.close()
    let damaged = try save("box", folder, onto: newer)
    #expect(damaged.end == .exited(65) && damaged.errors.contains(base), "\(damaged.errors)")
    #expect(try names.filter { $0.contains("saving") || $0 == "saved" }.isEmpty)
    for guest in [guest, other] {
      guest.type("q")
      #expect(try guest.waitForEnd() == .exited(0))
    }
  }

  @Test("are shown: what they are, and what they need")
  func inspect() throws {
    let (guest, disk) = try writer("raw")
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))
    #expect(try guest.waitForEnd() == .exited(0))
    let shown = try machines.run("inspect", folder, "--verify")
    #expect(shown.end == .exited(0), "\(shown.errors)")
    for text in ["128 MiB", "guest:disk-virtio", "\(disk): as it was", "device/disk0", "engine"] {
      #expect(shown.output.contains(text), "\(shown.output)")
    }
    let json = try JSONSerialization.jsonObject(
      with: Data(try machines.run("inspect", folder, "--json").output.utf8))
    let spec = try #require((json as? [String: Any])?["spec"] as? [String: Any])
    #expect(spec["image"] as? String == "guest:disk-virtio")

    #expect(try restore("w 8\nq\n").output == "ok\n")
    #expect(try machines.run("inspect", folder).output.contains("\(disk): changed since"))
    let memory = folder + "/memory"
    try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: memory)
    let file = try FileHandle(forUpdating: URL(filePath: memory))
    try file.seek(toOffset: 0x5_0000)
    try file.write(contentsOf: [1])
    try file.close()
    #expect(try machines.run("inspect", folder).end == .exited(0))
    #expect(try machines.run("inspect", folder, "--verify").end == .exited(65))
    #expect(try machines.run("inspect", folder + "/none").end == .exited(66))
    #expect(try machines.run("inspect", "box", "--verify").end == .exited(64))
  }

  @Test("let the machine go on when whoever held it for one has gone")
  func clientGoes() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    let client = """
      import array, socket, sys, tempfile
      s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
      s.connect("\(machines.path)/run/kvmlite/box/control.sock")
      files = [tempfile.TemporaryFile() for _ in range(2)]
      rights = array.array("i", [file.fileno() for file in files])
      for message in sys.argv[1:]:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if "save" in message else []
        s.sendmsg([message.encode()], ancillary)
        print(s.recv(65536).decode())
      """
    let result = try Kvmlite.run(
      ["-c", client, #"{"command": "save", "stay": true}"#], of: "python3")
    #expect(result.output.contains("\"ok\": true"), "\(result.output) \(result.errors)")
    guest.type("2q")
    #expect(try guest.waitForEnd() == .exited(0) && guest.outputText.contains("2"))
  }

  @Test("that can't be written leave nothing behind, and the machine goes on")
  func fullDisk() throws {
    let guest = try machines.start(["run", "--name", "box", "guest:echo-irq"], input: .pipe)
    guest.type("1")
    try guest.waitForOutput("1")
    let mounts = [
      "unshare", "--mount", "sh", "-c",
      "mkdir $0/small; mount -t tmpfs -o size=8k none $0/small; \"$@\"; s=$?; ls -A $0/small; exit $s",
      machines.path, Kvmlite.path, "save", "box", machines.path + "/small/saved",
    ]
    let result = try Kvmlite.end(
      of: ChildProcess(mounts[0], Array(mounts.dropFirst()), environment: machines.environment))
    #expect(result.end == .exited(71) && result.errors.contains("ENOSPC"), "\(result.errors)")
    #expect(result.output.isEmpty)
    guest.type("2q")
    #expect(try guest.waitForEnd() == .exited(0) && guest.outputText.contains("12"))
  }
}
