import Foundation
import Glibc
import TestSupport
import Testing

/// A cgroup in which a test starts kvmlite.
private final class TestGroup {
  static let top = "/sys/fs/cgroup"
  private static let controllers = ["memory", "cpu", "pids", "io"]

  /// Why there is none to be had here; nil if there is.
  static let lack: String? = {
    guard geteuid() == 0 else { return "needs root, to make cgroups" }
    let there = words("\(top)/cgroup.controllers")
    guard there.isSuperset(of: controllers), FileManager.default.isWritableFile(atPath: top) else {
      return "needs cgroup version 2 at \(top), with \(controllers.joined(separator: ", "))"
    }
    // A host where they aren't handed on is left as it is, but for one that nobody else manages.
    return words("\(top)/cgroup.subtree_control").isSuperset(of: controllers) || isInRoot
      ? nil : "needs a host whose cgroups are handed on all controllers"
  }()
  static let isInRoot =
    (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) == "0::/\n"

  static func words(_ path: String) -> Set<String> {
    let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    return Set(text.split { $0.isWhitespace }.map(String.init))
  }

  let path: String
  /// Makes the program behind it one of the group's.
  var wrapper: [String] {
    ["sh", "-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"", path]
  }

  /// One in `parent`, that belongs to `user`.
  init(in parent: String = TestGroup.top, user: uid_t = 0) throws {
    path = "\(parent)/test-\(UUID().uuidString.prefix(8))"
    try Self.handOn(parent)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    for file in ["", "/cgroup.procs", "/cgroup.subtree_control"] {
      try FileManager.default.setAttributes(
        [.ownerAccountID: user, .groupOwnerAccountID: user], ofItemAtPath: path + file)
    }
  }

  // The name is read while the call lasts.
  deinit { unsafe rmdir(path) }

  static func handOn(_ path: String) throws {
    let words = controllers.map { "+" + $0 }.joined(separator: " ")
    try Data(words.utf8).write(to: URL(filePath: path + "/cgroup.subtree_control"), options: [])
  }

  /// The names of the groups in it.
  var groups: [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    return names.filter {
      FileManager.default.fileExists(atPath: "\(path)/\($0)/cgroup.procs")
    }.sorted()
  }
}

@Suite("The limits of a machine, as options and in a spec", .limited, .sameOnEachHost)
struct LimitOptionTests {
  private func config(_ arguments: String..., input: String = "") throws -> Kvmlite.Result {
    try Kvmlite.end(
      of: Kvmlite.start(["config"] + arguments, input: .bytes(Array(input.utf8))))
  }

  @Test("are printed as they are read, each once, the last word first")
  func printed() throws {
    let first = try config(
      "--limit", "memory=1.5G,cpus=1.50", "--limit", "threads=64,read=10M,write=4096,cpus=0.25")
    #expect(first.errors == "")
    let limits = try #require(first.output.firstMatch(of: /"limits": (\{[^}]*\})/)?.1)
    let expected = """
      {"memory":"1536M","cpus":0.25,"threads":64,"read":"10M","write":"4K"}
      """
    #expect(limits.filter { !$0.isWhitespace } == expected)
    #expect(try config("--config", "-", input: first.output).output == first.output)
    let more = try config("--config", "-", "--limit", "cpus=2", input: first.output)
    #expect(
      more.output == first.output.replacing("\"cpus\": 0.25", with: "\"cpus\": 2"))
    #expect(try !config().output.contains("limits"))
  }

  @Test(
    "that make no sense are refused",
    arguments: [
      ("memroy=1G", "there is no setting 'memroy': did you mean 'memory'?"),
      ("memory", "memory: a size such as 512M"), ("memory=64K", "from 1M on"),
      ("memory=99999999999T", "memory: a size"), ("cpus=0", "cpus: a number from 0.01 to 1000000"),
      ("cpus=-1", "not '-1'"), ("cpus=nan", "not 'nan'"), ("cpus=1e3", "not '1e3'"),
      ("cpus=1000001", "a number from 0.01"), ("threads=0", "threads: a number from 1 to 4194304"),
      ("threads=1.5", "not '1.5'"), ("threads=2", "too few: with 1 VCPUs there are 3 or more"),
      ("read=4095", "read: a size such as 10M, or bytes, from 4K on"), ("write=", "write: a size"),
      ("", "there is no setting ''"), ("cpus=1,", "there is no setting ''"),
    ])
  func refused(option: String, words: String) throws {
    let result = try config("--limit", option)
    #expect(result.end == .exited(64) && result.output == "")
    #expect(result.errors.contains(words), "\(result.errors)")
  }

  @Test("are refused in a file with line and column")
  func refusedInFile() throws {
    for (text, words) in [
      (
        "{\"version\":1,\n\"limits\":{\"cpu\":1}}", ":2:11: unknown key 'cpu': did you mean 'cpus'?"
      ),
      ("{\"version\":1,\n\"limits\":{\"cpus\":\"1\"}}", ":2:18: cpus: a number from 0.01"),
      (
        "{\"version\":1,\"cpus\":3,\n\"limits\":{\"threads\":4}}",
        ":2:21: a limit of 4 threads is too few: with 3 VCPUs there are 5 or more"
      ),
    ] {
      let result = try config("--config", "-", input: text)
      #expect(result.end == .exited(64) && result.errors.contains(words), "\(result.errors)")
    }
  }
}

@Suite("A machine whose limits can't be kept", .needsKVM, .limited)
struct LackOfLimitsTests {
  private static let all = "memory=256M,cpus=1.5,threads=64,read=10M,write=5M"

  @Test("runs all the same, and says of each why", .needsMounts)
  func said() throws {
    // There is nothing behind what is mounted there.
    let wrapper = [
      "unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup; exec \"$@\"", "sh",
    ]
    for sandbox in ["on", "off"] {
      let result = try Kvmlite.run(
        ["--sandbox", sandbox, "--limit", Self.all, "guest:hello-real"], by: wrapper)
      #expect(result.end == .exited(0) && result.output.contains("Hello"))
      let lines = result.errors.split(separator: "\n")
      #expect(lines.count == 4, "\(result.errors)")
      for (line, what) in zip(
        lines, ["memory", "processor time", "the number of threads", "what goes from and to disks"])
      {
        #expect(line.hasPrefix("kvmlite: \(what) can't be limited: "))
      }
    }
    let one = try Kvmlite.run(
      ["--verbose", "--limit", "cpus=2", "guest:hello-real"], by: wrapper)
    #expect(one.errors.components(separatedBy: "can't be limited").count == 2)
    #expect(one.errors.contains("\n  limit of processor time     no: "), "\(one.errors)")
  }

  @Test(
    "says so in a cgroup of others, too, and how to have one",
    .enabled(if: TestGroup.lack == nil, "\(TestGroup.lack ?? "")"))
  func others() throws {
    let group = try TestGroup(user: 54321)
    let run = ["sh", "-c", "\"$@\"; exit $?", "sh"]
    let process = try ChildProcess(
      "/usr/bin/env",
      group.wrapper + Caller.user.wrapper + run
        + [Kvmlite.path, "--limit", "memory=256M,cpus=1", "guest:hello-real"])
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(0) && result.output.contains("Hello"))
    #expect(
      result.errors.contains(
        "kvmlite: memory can't be limited: there are other processes in \(group.path): start kvmlite "
          + "by systemd-run --user --scope -p Delegate=yes\n"), "\(result.errors)")
    #expect(group.groups.isEmpty)
  }

  @Test(
    "says which disk has none", .enabled(if: TestGroup.lack == nil, "\(TestGroup.lack ?? "")"))
  func disks() throws {
    let group = try TestGroup()
    let disk = "/dev/shm/kvmlite-\(UUID())"
    try Data(count: 65536).write(to: URL(filePath: disk))
    defer { try? FileManager.default.removeItem(atPath: disk) }
    let result = try Kvmlite.run(
      ["--limit", "read=1M", "--disk", disk, "guest:hello-real"],
      by: ["/usr/bin/env"] + group.wrapper)
    #expect(result.end == .exited(0))
    #expect(
      result.errors.hasPrefix(
        "kvmlite: what goes from and to disks can't be limited: \(disk) lies on no disk of the host's"
      ),
      "\(result.errors)")
  }
}

@Suite(
  "A machine with limits", .needsKVM,
  .enabled(if: TestGroup.lack == nil, "\(TestGroup.lack ?? "")"),
  .serialized, .limited)
struct LimitTests {
  private let scratch: Scratch
  private let spin: String

  init() throws {
    scratch = try Scratch()
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: scratch.path)
    spin = try scratch.file("spin.bin", Image.spin)
  }

  private func start(
    in group: TestGroup, _ arguments: [String], by caller: Caller = .root
  ) throws -> ChildProcess {
    try ChildProcess(
      "/usr/bin/env", group.wrapper + caller.wrapper + [Kvmlite.path] + arguments)
  }

  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: path, encoding: .utf8).trimmingCharacters(
      in: .whitespacesAndNewlines)
  }

  /// Waits until nothing of kvmlite's is left there.
  private func waitUntilGone(_ group: TestGroup) {
    while !group.groups.isEmpty { usleep(1000) }
  }

  @Test(
    "is in a cgroup of its own, which is gone when it has ended, even by SIGKILL",
    arguments: [Caller.root, .user], [SIGTERM, SIGKILL])
  private func below(caller: Caller, signal: Int32) throws {
    let group = try TestGroup(user: caller.wrapper.isEmpty ? 0 : 54321)
    let process = try start(
      in: group, ["--limit", "memory=256M,cpus=1.5,threads=64", spin], by: caller)
    try process.waitForOutput("!")
    #expect(process.errorText == "")
    let name = "kvmlite-\(process.identifier)"
    let place = group.path.dropFirst(TestGroup.top.count) + "/" + name
    #expect(try text("/proc/\(process.identifier)/cgroup").hasSuffix("0::\(place)"))
    let leaf = group.path + "/" + name
    #expect(try text(leaf + "/memory.max") == "268435456")
    #expect(try text(leaf + "/memory.oom.group") == "1")
    #expect(try text(leaf + "/cpu.max") == "150000 100000")
    #expect(try text(leaf + "/pids.max") == "64")
    // Who removes it is in another one.
    #expect(group.groups == [name, name + "-helpers"])
    #expect(try text(leaf + "-helpers/cgroup.procs").split(separator: "\n").count == 2)
    process.send(signal)
    #expect(
      try process.waitForEnd() == (signal == SIGKILL ? .killed(signal) : .exited(128 + signal)))
    waitUntilGone(group)
    #expect(try text(group.path + "/cgroup.subtree_control") == "")
  }

  @Test("is beside the one that it was started in, where others are in that")
  func beside() throws {
    let outer = try TestGroup()
    do {
      let inner = try TestGroup(in: outer.path)
      let process = try ChildProcess(
        "/usr/bin/env",
        inner.wrapper + [
          "sh", "-c", "\"$@\"; exit $?", "sh", Kvmlite.path, "--limit", "cpus=1", spin,
        ])
      try process.waitForOutput("!")
      #expect(process.errorText == "")
      let name = try #require(outer.groups.first { $0.hasPrefix("kvmlite-") })
      #expect(outer.groups.count == 2)
      #expect(try text("\(outer.path)/\(name)/cpu.max") == "100000 100000")
      let number = try #require(Int32(name.dropFirst(8)))
      kill(number, SIGTERM)
      #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
      while outer.groups.contains(name) { usleep(1000) }
    }
  }

  @Test(
    "limits its disks", .enabled(if: Rights.canLoop, "needs loop devices"),
    .enabled(if: TestGroup.isInRoot, "needs to be in the root of all cgroups"))
  func disks() throws {
    let file = try scratch.file("disk.raw", [UInt8](repeating: 0, count: 1 << 20))
    let loop = try Kvmlite.end(of: ChildProcess("losetup", ["-f", "--show", file])).output
      .trimmingCharacters(in: .whitespacesAndNewlines)
    defer { _ = try? ChildProcess("losetup", ["-d", loop]).waitForEnd() }
    let process = try Kvmlite.start(["--limit", "read=10M,write=5M", "--disk", loop, spin])
    try process.waitForOutput("!")
    #expect(process.errorText == "")
    let leaf = "\(TestGroup.top)/kvmlite-\(process.identifier)"
    let number = try text("/sys/block/\(loop.dropFirst(5))/dev")
    let limits = try text(leaf + "/io.max").split(separator: "\n")
    // Whose a page is that is written later, only `memory` knows.
    #expect(TestGroup.words(leaf + "/cgroup.controllers").isSuperset(of: ["io", "memory"]))
    #expect(limits.contains { $0.hasPrefix("\(number) rbps=10485760 wbps=5242880 ") }, "\(limits)")
    process.send(SIGKILL)
    _ = try process.waitForEnd()
    while FileManager.default.fileExists(atPath: leaf) { usleep(1000) }
  }

  @Test("says which limit it is that leaves it no thread more")
  func threads() throws {
    let group = try TestGroup()
    let process = try start(
      in: group,
      ["--limit", "threads=3", "--timeout", "60", "--trace-file", scratch.path + "/trace", spin])
    #expect(try process.waitForEnd() == .exited(71))
    #expect(process.errorText.contains("a limit of 3 threads"), "\(process.errorText)")
  }

  @Test("has no more processor time than it is given")
  func processors() throws {
    let group = try TestGroup()
    let process = try start(in: group, ["--limit", "cpus=0.1", spin])
    try process.waitForOutput("!")
    let statistics = "\(group.path)/kvmlite-\(process.identifier)/cpu.stat"
    while try text(statistics).contains("nr_throttled 0\n") { usleep(10_000) }
    process.send(SIGTERM)
    #expect(try process.waitForEnd() == .exited(128 + SIGTERM))
    waitUntilGone(group)
  }

  /// Fills 48 MiB from 2 MiB on, in protected mode.
  private static let fill: [UInt8] = [
    0xBF, 0x00, 0x00, 0x20, 0x00,  // 00: mov edi,0x200000
    0xB9, 0x00, 0x00, 0x00, 0x03,  // 05: mov ecx,0x3000000
    0x31, 0xC0,  //                   0a: xor eax,eax
    0xF3, 0xAA,  //                   0c: rep stos byte [edi],al
    0xFA,  //                         0e: cli
    0xF4,  //                         0f: hlt
  ]

  @Test("is ended by the kernel when it takes more memory, and that is told")
  func memory() throws {
    let group = try TestGroup()
    let image = try scratch.file("fill.bin", Self.fill)
    let report = scratch.path + "/outcome.json"
    let process = try start(
      in: group,
      [
        "--limit", "memory=32M", "--memory", "64M", "--mode", "protected", "--outcome-file", report,
        image,
      ])
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .killed(SIGKILL))
    let words = "the host's kernel has ended this machine: it had used up its limit of memory, 32M"
    #expect(
      result.errors.contains(
        "kvmlite: the guest's memory, 64M, is not less than the limit of 32M: the host's kernel ends "
          + "the machine when it is used\n"))
    #expect(result.errors.hasSuffix("kvmlite: \(words)\n"), "\(result.errors)")
    waitUntilGone(group)
    #expect(
      try text(report) == "{\"end\":\"memory-limit\",\"message\":\"\(words)\",\"status\":137}")
    // With room for all of it nothing happens.
    let enough = try Kvmlite.end(
      of: start(
        in: group,
        ["--limit", "memory=128M", "--memory", "64M", "--mode", "protected", image]))
    #expect(enough.end == .exited(0) && enough.errors == "", "\(enough.errors)")
    waitUntilGone(group)
  }

  @Test("with a name is known to have ended for that")
  func named() throws {
    let group = try TestGroup()
    let machines = try NamedMachines()
    let image = try scratch.file("fill.bin", Self.fill)
    let start = try ChildProcess(
      "/usr/bin/env",
      group.wrapper + [
        Kvmlite.path, "up", "--name", "fill", "--limit", "memory=32M", "--memory", "64M", "--mode",
        "protected", image,
      ], environment: machines.environment)
    #expect(try start.waitForEnd() == .exited(0))
    #expect(start.errorText.contains("is not less than the limit"))
    waitUntilGone(group)
    let wait = try machines.run("wait", "fill")
    #expect(wait.end == .exited(137))
    #expect(wait.errors == "kvmlite: fill has ended: memory-limit (status 137)\n")
  }
}
