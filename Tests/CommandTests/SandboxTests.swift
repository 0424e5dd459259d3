import Foundation
import Glibc
import TestSupport
import Testing

/// Runs kvmlite as root, or as a user who may use KVM.
struct Caller: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let wrapper: [String]

  static let root = Caller(testDescription: "root", wrapper: [])
  /// /dev/kvm is open to all in a mount namespace of this command's alone.
  static let user = Caller(
    testDescription: "a user",
    wrapper: [
      "unshare", "--mount", "sh", "-ec",
      """
      node=$(mktemp -u) && mknod -m 666 "$node" c 10 232 && mount --bind "$node" /dev/kvm
      rm "$node"
      exec setpriv --reuid 54321 --regid 54321 --clear-groups "$0" "$@"
      """,
    ])

  func start(_ arguments: [String], _ environment: [String: String] = [:]) throws -> ChildProcess {
    let command = wrapper + [Kvmlite.path] + arguments
    return try ChildProcess(
      "/usr/bin/env", command, environment: environment)
  }
}

@Suite("A guest that has taken over a thread", .needsKVM, .needsRoot, .limited)
struct TakeoverTests {
  private static let roles = ["vcpu", "loop", "worker"]

  @Test(
    "is stopped at each forbidden act, and told of by name",
    arguments: [Caller.root, .user], roles)
  private func acts(caller: Caller, role: String) throws {
    // The clock's thread is a worker.
    let guest = role == "worker" ? "guest:rtc-irq" : "guest:hello-real"
    // Each takes most of a second where the host is software.
    for (index, act) in Takeovers.acts.enumerated() where !Trials.areFew || index % 4 == 0 {
      let (name, call) = act
      let process = try caller.start([guest], ["KVMLITE_TAKEOVER": "\(role):\(call)"])
      let result = try Kvmlite.end(of: process)
      #expect(result.end == .exited(71), "\(name): \(result.errors)")
      #expect(result.errors.contains("made the system call \(name) ("), "\(result.errors)")
      #expect(!result.errors.contains("it went on"), "\(name): \(result.errors)")
    }
  }

  @Test("may use KVM no further than its thread's work goes")
  func machines() throws {
    // KVM_CREATE_VM and KVM_CREATE_VCPU, from a VCPU's thread
    for request in [0xAE01, 0xAE41] {
      let process = try Caller.root.start(
        ["guest:hello-real"], ["KVMLITE_TAKEOVER": "vcpu:16:5:\(request):0"])
      let result = try Kvmlite.end(of: process)
      #expect(result.end == .exited(71))
      #expect(result.errors.contains("thread vcpu0 made the system call ioctl"), "\(result.errors)")
    }
  }

  @Test("is only told of with --sandbox log, which then does what was asked")
  func log() throws {
    let process = try Caller.root.start(
      ["--sandbox", "log", "guest:hello-real"], ["KVMLITE_TAKEOVER": "vcpu:62:0:0"])
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(0))
    #expect(result.output.contains("Hello"))
    #expect(result.errors.contains("thread vcpu0 made the system call kill (62)"))
    // kill(0, 0) looks whether there is somebody.
    #expect(result.errors.contains("it went on: 0"), "\(result.errors)")
  }

  @Test("of a back end is stopped and told of likewise", arguments: ["loop", "worker"])
  func backEnd(role: String) throws {
    let scratch = try Scratch()
    let image = try scratch.file("disk.raw", [UInt8](repeating: 0, count: 64 << 10))
    let socket = scratch.path + "/socket"
    for (name, call) in Takeovers.acts
    where ["openat", "execve", "socket", "ptrace"].contains(name) {
      let backEnd = try Caller.root.start(
        ["backend", "block", socket, image], ["KVMLITE_TAKEOVER": "\(role):\(call)"])
      if role == "worker" {
        try backEnd.waitForErrors("serves \(image)")
        // A front end makes it start one.
        _ = try Kvmlite.run("--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block")
      }
      #expect(try backEnd.waitForEnd() == .exited(71), "\(name): \(backEnd.errorText)")
      #expect(backEnd.errorText.contains("made the system call \(name) ("), "\(backEnd.errorText)")
      #expect(!backEnd.errorText.contains("it went on"), "\(name)")
    }
  }

  @Test("of a command for disks opens files, and no more than reads them unless it is to write")
  func disks() throws {
    let scratch = try Scratch()
    let image = try scratch.file("disk.raw", [UInt8](repeating: 0, count: 64 << 10))
    let (reads, writes) = (["disk", "info", image], ["disk", "convert", image, image + ".qcow2"])
    let acts: [(arguments: [String], call: String, isRefused: Bool)] = [
      (reads, "257:-100:path:0", false), (reads, "257:-100:path:2", true),
      (writes, "257:-100:path:2", false), (reads, "59:path:0:0", true),
      (writes, "59:path:0:0", true), (writes, "41:2:1:0", true), (reads, "57", true),
      (writes, "101:16:1:0:0", true), (writes, "62:1:0", true),
      // The limits of another process, and TIOCSTI, which types into the terminal.
      (writes, "302:1:7:0:0", true), (writes, "16:0:21522:path", true),
    ]
    for act in acts {
      let result = try Kvmlite.end(
        of: Caller.root.start(act.arguments, ["KVMLITE_TAKEOVER": "loop:" + act.call]))
      try? FileManager.default.removeItem(atPath: image + ".qcow2")
      #expect(result.end == .exited(0), "\(result.errors)")
      // EPERM
      #expect(
        result.errors.contains("it went on: -1\n") == act.isRefused, "\(act): \(result.errors)")
      #expect(result.errors.contains("it went on: "))
    }
  }

  @Test("leaves an account, also where it is asked for as a file")
  func outcome() throws {
    let scratch = try Scratch()
    let file = scratch.path + "/outcome.json"
    let process = try Caller.root.start(
      ["--outcome-file", file, "guest:hello-real"], ["KVMLITE_TAKEOVER": "vcpu:2:path:0"])
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(71))
    #expect(result.errors.contains("--sandbox log"))
    let text = try String(contentsOfFile: file, encoding: .utf8)
    #expect(
      text.hasPrefix("{\"end\":\"sandbox\",\"message\":\"thread vcpu0 made the system call open"))
    #expect(text.contains("\"status\":71}"))
  }
}

@Suite("A running kvmlite", .needsKVM, .needsRoot, .limited)
struct ConfinementTests {
  @Test("has no rights, no files and no network left", arguments: [Caller.root, .user])
  private func rights(caller: Caller) throws {
    let scratch = try Scratch()
    let image = try scratch.file("spin.bin", Image.spin)
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o755], ofItemAtPath: scratch.path)
    let process = try caller.start([image])
    try process.waitForOutput("!")
    try expectNothingLeft(process)
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
  }

  @Test("has none as a back end either", arguments: [Caller.root, .user])
  private func backEnd(caller: Caller) throws {
    let scratch = try Scratch()
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o777], ofItemAtPath: scratch.path)
    let image = try scratch.file("disk.raw", [UInt8](repeating: 0, count: 64 << 10))
    try FileManager.default.setAttributes([.posixPermissions: 0o666], ofItemAtPath: image)
    let socket = scratch.path + "/socket"
    let process = try caller.start(["backend", "block", socket, image])
    try process.waitForErrors("serves \(image)")
    let guest = try Kvmlite.start(
      ["--disk", "vhost-user=\(socket)", "guest:echo"], input: .pipe)
    try guest.waitForOutput("Type")
    try expectNothingLeft(process)
    guest.send(SIGKILL)
    _ = try guest.waitForEnd()
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(0))
    #expect(!FileManager.default.fileExists(atPath: socket))
  }

  /// Each thread has a filter and no rights; there are no files and no network.
  private func expectNothingLeft(_ process: ChildProcess) throws {
    let place = "/proc/\(process.identifier)"
    for thread in try FileManager.default.contentsOfDirectory(atPath: place + "/task") {
      let status = try fields("\(place)/task/\(thread)/status")
      #expect(status["Seccomp"] == "2")
      #expect(status["NoNewPrivs"] == "1")
      #expect(status["CapEff"] == "0000000000000000")
      #expect(status["CapPrm"] == "0000000000000000")
      #expect(status["Uid"]?.split(separator: "\t").contains("0") == false)
      #expect(status["Gid"]?.split(separator: "\t").contains("0") == false)
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: place + "/root/").isEmpty)
    for name in ["mnt", "net", "ipc", "uts"] {
      let links = try ["\(place)/ns/\(name)", "/proc/self/ns/\(name)"].map {
        try FileManager.default.destinationOfSymbolicLink(atPath: $0)
      }
      #expect(links[0] != links[1], "\(name)")
    }
  }

  @Test("has closed what whoever started it had open")
  func inherited() throws {
    let scratch = try Scratch()
    let image = try scratch.file("spin.bin", Image.spin)
    let process = try ChildProcess(
      "/usr/bin/env",
      [
        "bash", "-c", "ulimit -n 4096; exec 7</etc/passwd 3000</etc/passwd; exec \"$0\" \"$1\"",
        Kvmlite.path, image,
      ])
    try process.waitForOutput("!")
    let files = "/proc/\(process.identifier)/fd"
    for number in try FileManager.default.contentsOfDirectory(atPath: files) {
      let name = try? FileManager.default.destinationOfSymbolicLink(atPath: files + "/" + number)
      #expect(name != "/etc/passwd")
    }
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
  }

  @Test("leaves nobody behind when it is killed")
  func killed() throws {
    let scratch = try Scratch()
    let image = try scratch.file("spin.bin", Image.spin)
    let process = try ChildProcess(Kvmlite.path, [image])
    try process.waitForOutput("!")
    let task = "/proc/\(process.identifier)/task/\(process.identifier)/children"
    let children = try String(contentsOfFile: task, encoding: .utf8).split(separator: " ")
      .compactMap { Int32($0) }
    #expect(!children.isEmpty)
    process.send(SIGKILL)
    #expect(try process.waitForEnd() == .killed(SIGKILL))
    for child in children { while kill(child, 0) == 0 { sched_yield() } }
  }

  private func fields(_ path: String) throws -> [String: String] {
    try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").reduce(into: [:]) {
      let words = $1.split(separator: ":", maxSplits: 1)
      $0[String(words[0])] = words.last.map { $0.trimmingCharacters(in: .whitespaces) }
    }
  }
}
