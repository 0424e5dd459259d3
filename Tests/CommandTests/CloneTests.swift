import Foundation
import TestSupport
import Testing

/// `kvmlite restore -n`: several machines that go on from one that was saved.
@Suite("Clones", .needsKVM, .limited)
struct CloneTests {
  private let machines: NamedMachines
  init() throws { machines = try NamedMachines() }

  private var folder: String { machines.path + "/saved" }

  /// Starts `box` with these options, waits for what its guest prints first, and saves and ends it.
  private func save(_ options: String..., typing: String = "", until text: String) throws {
    let guest = try machines.start(["run", "--name", "box"] + options, input: .pipe)
    if !typing.isEmpty { guest.type(typing) }
    try guest.waitForOutput(text)
    let saved = try machines.run("save", "box", folder, "--stop")
    #expect(saved.end == .exited(0), "\(saved.errors)")
    #expect(try guest.waitForEnd() == .exited(0))
  }

  /// What the guest of `name` has printed.
  private func output(of name: String) throws -> [UInt8] {
    let path = "\(machines.path)/state/kvmlite/\(name)/console.log"
    return try Array(Data(contentsOf: URL(filePath: path)))
  }

  @Test(
    "have disks of their own on what was saved, which stays as it was", arguments: ["raw", "qcow2"])
  func disks(kind: String) throws {
    let disk = machines.path + "/disk." + kind
    #expect(try machines.run("disk", "create", "--size", "64K", disk).end == .exited(0))
    try save(
      "--disk", disk + ",bus=mmio", "guest:disk-virtio", typing: "w 7\n", until: "ok\n")
    let before = try Data(contentsOf: URL(filePath: disk))

    let restored = try machines.run(
      "restore", folder, "-n", "2", "--name", "web", "--serial", "disk0=A")
    #expect(restored.end == .exited(0), "\(restored.errors)")
    #expect(restored.output == "web-1\nweb-2\n")
    // The one writes where the other doesn't, and both have what was there.
    for (name, lines) in [("web-1", "w 8\nr 8\nr 7\nq\n"), ("web-2", "r 7\nr 8\nq\n")] {
      let viewer = try machines.start(["attach", name], input: .pipe)
      viewer.type(lines)
      #expect(try viewer.waitForEnd() == .exited(0), "\(viewer.errorText)")
    }
    #expect(try output(of: "web-1") == Array("ok\nok 8\nok 7\n".utf8))
    #expect(try output(of: "web-2") == Array("ok 7\nok 0\n".utf8))
    #expect(try Data(contentsOf: URL(filePath: disk)) == before)
    #expect(try machines.run("inspect", "web-2", "--json").output.contains("\"A-2\""))
    let long = try machines.run(
      "restore", folder, "-n", "2", "--serial", "disk0=abcdefghijklmnopqrs")
    #expect(long.end == .exited(64) && long.errors.contains("serial"), "\(long.errors)")
    // Another life begins on the same.
    #expect(try machines.run("restore", folder, "-n", "1", "--name", "late").end == .exited(0))
    #expect(try machines.run("rm", "--force", "web-1").output.contains("disk-0.qcow2"))
  }

  @Test("have generations of their own at their first instruction, which the guest is told of")
  func generations() throws {
    try save(machines.file("guest.elf", generationGuest), until: "!")
    let restored = try machines.run("restore", folder, "-n", "3")
    #expect(restored.output == "saved-1\nsaved-2\nsaved-3\n", "\(restored.errors)")
    var generations: Set<[UInt8]> = []
    for name in ["saved-1", "saved-2", "saved-3"] {
      #expect(try machines.run("wait", name).end == .exited(0))
      let output = try output(of: name)
      #expect(output.count == 17 && output.last == 0)
      generations.insert(output)
    }
    let alone = try Kvmlite.end(of: machines.start(["restore", folder]))
    #expect(alone.end == .exited(0))
    #expect(generations.count == 3)
  }

  @Test("have sockets of their own")
  func sockets() throws {
    try save("--vsock", "cid=5,socket=\(machines.path)/vsock", "guest:echo", until: "Ctrl-D")
    let restored = try machines.run("restore", folder, "-n", "2")
    #expect(restored.end == .exited(0), "\(restored.errors)")
    for (name, cid) in [("saved-1", "6"), ("saved-2", "7")] {
      let spec = try String(
        contentsOfFile: "\(machines.path)/state/kvmlite/\(name)/spec.json", encoding: .utf8)
      #expect(spec.contains("\"cid\": \(cid)"))
      let socket = "\(machines.path)/run/kvmlite/\(name)/vsock.sock"
      #expect(spec.contains(socket) && FileManager.default.fileExists(atPath: socket))
    }
  }

  @Test("are refused before anything is made where two can't have the same")
  func refusals() throws {
    let out = "file=\(machines.path)/out"
    #expect(
      try machines.run("up", "--name", "box", "--console", out, "guest:echo").end == .exited(0))
    #expect(try machines.run("save", "box", folder, "--stop").end == .exited(0))
    func refusal(_ options: String..., status: Int32 = 64) throws -> String {
      let result = try Kvmlite.end(of: machines.start(["restore", folder] + options))
      #expect(result.end == .exited(status) && result.output.isEmpty)
      #expect(try machines.names() == ["box"])
      return result.errors
    }
    #expect(try refusal("-n", "2").contains("console0: only one machine can print to"))
    #expect(try refusal("-n", "0").contains("-n 0: give 1 to"))
    #expect(try refusal("--serial", "disk0=A").contains("by -n"))
    #expect(try refusal("-n", "1", "--serial", "disk0=A").contains("is no disk"))
    #expect(try refusal("-n", "1", "--trace").contains("--trace-file"))
    let long = String(repeating: "a", count: 39)
    #expect(try refusal("-n", "1", "--name", long).contains("too long for a name"))
    try machines.run("up", "--name", "web-1", "guest:echo")
    let taken = try machines.run("restore", folder, "-n", "1", "--name", "web")
    #expect(taken.end == .exited(75) && taken.errors.contains("'web-1' already"))
  }

  @Test("aren't made on a disk that was written since, and nothing is left of them")
  func changed() throws {
    let disk = machines.path + "/disk.raw"
    #expect(try machines.run("disk", "create", "--size", "64K", disk).end == .exited(0))
    try save("--disk", disk + ",bus=mmio", "guest:disk-virtio", typing: "w 7\n", until: "ok\n")
    let written = try Kvmlite.end(
      of: machines.start(["restore", folder], input: .bytes(Array("w 8\nq\n".utf8))))
    #expect(written.end == .exited(0))
    let result = try machines.run("restore", folder, "-n", "2")
    #expect(result.end == .exited(65) && result.errors.contains("disk0: \(disk) isn't as it was"))
    #expect(try machines.names() == ["box"])
    let left = try FileManager.default.contentsOfDirectory(atPath: machines.path + "/state/kvmlite")
    #expect(left == ["box"])
  }
}
