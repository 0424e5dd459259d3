import Foundation
import Glibc
import TestSupport
import Testing

/// What a host's trouble with a disk becomes: the guest's I/O errors and a message, never an end.
///
/// The guests are `disk-virtio` and `disk-ide`, which do what lines of input ask for.
@Suite("A disk's trouble on the host", .needsKVM, .limited, .sameOnEachHost)
struct DiskErrorTests {
  enum Bus: String, CaseIterable {
    case mmio, ide
    var guest: String { self == .mmio ? "guest:disk-virtio" : "guest:disk-ide" }
    /// VIRTIO_BLK_S_IOERR; ERR with UNC.
    var readError: String { self == .mmio ? "error 1" : "error \(0x51 << 8 | 0x40)" }
    /// VIRTIO_BLK_S_IOERR; ERR with ABRT.
    var writeError: String { self == .mmio ? "error 1" : "error \(0x51 << 8 | 0x04)" }
  }

  private static let size = 4 << 20
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func path(_ name: String) -> String { "\(scratch.path)/\(name)" }

  private func makeRaw(_ name: String) throws -> String {
    let file = path(name)
    try #require(FileManager.default.createFile(atPath: file, contents: nil))
    try #require(unsafe truncate(file, Self.size) == 0)
    return file
  }

  private func start(_ disk: String, _ bus: Bus) throws -> ChildProcess {
    try Kvmlite.start(["--disk", "\(disk),bus=\(bus.rawValue)", bus.guest], input: .pipe)
  }

  /// Has the guest do `commands` and returns its answers.
  private func answers(_ process: ChildProcess, _ commands: String...) throws -> [String] {
    let before = process.outputText.split(separator: "\n").count
    process.type(commands.map { $0 + "\n" }.joined())
    try process.waitForOutput("\n", times: before + commands.count)
    return process.outputText.split(separator: "\n").dropFirst(before).map(String.init)
  }

  /// Ends the guest, which must be alive, and returns kvmlite's messages.
  private func end(_ process: ChildProcess) throws -> [String] {
    process.type("q\n")
    #expect(try process.waitForEnd() == .exited(0))
    return process.errorText.split(separator: "\n").map(String.init)
  }

  /// Runs kvmlite with its options and `commands` by a script that has them as "$@".
  private func run(_ script: String, _ bus: Bus, disk: String, _ commands: [String]) throws
    -> Kvmlite.Result
  {
    let input = Array((commands + ["q", ""]).joined(separator: "\n").utf8)
    return try Kvmlite.end(
      of: ChildProcess(
        "/bin/sh",
        [
          "-ec", script, scratch.path, Kvmlite.path, "--disk", "\(disk),bus=\(bus.rawValue)",
          bus.guest,
        ], input: .bytes(input)))
  }

  // MARK: Space

  @Test("a limit on files' sizes", .enabled(if: Rights.hasPrlimit), arguments: Bus.allCases)
  func sizeLimit(bus: Bus) throws {
    // The file of a new qcow2 image grows with each block.
    let disk = path("d.qcow2")
    #expect(try Kvmlite.run("disk", "create", "--size", "4M", disk).end == .exited(0))
    let commands = (0..<64).flatMap { ["w \($0 * 16)"] } + ["f", "r 0", "w 0", "r 1008"]
    let result = try run("exec prlimit --fsize=1048576 \"$@\"", bus, disk: disk, commands)
    let answers = result.output.split(separator: "\n").map(String.init)
    try #require(answers.count == 68)
    let written = try #require(answers.firstIndex(of: bus.writeError))
    #expect((4...14).contains(written))
    #expect(answers[..<written].allSatisfy { $0 == "ok" })
    #expect(answers[written..<64].allSatisfy { $0 == bus.writeError })
    // What has its place goes on.
    #expect(answers[64...] == ["ok", "ok 0", "ok", "ok 0"])
    #expect(result.end == .exited(0))
    let messages = result.errors.split(separator: "\n")
    #expect(messages.count == 1 && messages[0].contains("(EFBIG)"), "\(result.errors)")
    #expect(messages[0].contains("\(disk): write at byte "), "\(result.errors)")
    #expect(try Kvmlite.run("disk", "check", disk).end == .exited(0))
  }

  @Test(
    "a full file system", .enabled(if: Rights.canMount), arguments: Bus.allCases, ["raw", "qcow2"])
  func full(bus: Bus, format: String) throws {
    let disk = path("d")
    let script = """
      exec unshare --mount sh -ec 'mount -t tmpfs -o size=512k none "$0"
      "$1" disk create --format \(format) --size 4M "$0/d" 2>/dev/null
      exec "$@"' "$0" "$@"
      """
    let commands = (0..<160).map { "w \($0)" } + ["f", "w 0", "r 0", "z 0", "r 0"]
    let result = try run(script, bus, disk: disk + ",format=\(format)", commands)
    let answers = result.output.split(separator: "\n").map(String.init)
    try #require(answers.count == 165, "\(result.output) \(result.errors)")
    let written = try #require(answers.firstIndex(of: bus.writeError))
    #expect((50...128).contains(written))
    #expect(answers[..<written].allSatisfy { $0 == "ok" })
    #expect(answers[written..<160].allSatisfy { $0 == bus.writeError })
    // qcow2's own tables may need space, too.
    #expect(answers[160] == (format == "raw" ? "ok" : bus.writeError))
    #expect(answers[161...] == ["ok", "ok 0", "ok", "ok 0"])
    #expect(result.end == .exited(0))
    #expect(result.errors.contains("(ENOSPC)"), "\(result.errors)")
    #expect(result.errors.split(separator: "\n").count == (format == "raw" ? 1 : 2))
  }

  // MARK: Files

  @Test("a file that is cut off", arguments: Bus.allCases)
  func truncated(bus: Bus) throws {
    let disk = try makeRaw("d.raw")
    let process = try start(disk, bus)
    #expect(try answers(process, "w 5", "w 1", "f", "r 5") == ["ok", "ok", "ok", "ok 5"])
    try #require(unsafe truncate(disk, 8192) == 0)
    #expect(try answers(process, "r 5", "r 6", "r 1") == [bus.readError, bus.readError, "ok 1"])
    // A write makes the file longer again, but what was behind the end is gone: no flush may work.
    #expect(try answers(process, "w 1000", "f", "f") == ["ok", bus.writeError, bus.writeError])
    let messages = try end(process)
    #expect(messages.count == 2, "\(messages)")
    #expect(messages.allSatisfy { $0.contains("the file ends before the disk does") })
  }

  @Test("a file that is removed, or replaced by another", arguments: Bus.allCases)
  func removed(bus: Bus) throws {
    let disk = try makeRaw("d.raw")
    let process = try start(disk, bus)
    #expect(try answers(process, "w 5", "f") == ["ok", "ok"])
    _ = try makeRaw("other")
    try #require(unsafe rename(path("other"), disk) == 0)
    // All can be read and written as before, but nothing of it will be there later.
    #expect(
      try answers(process, "r 5", "w 6", "f", "f") == [
        "ok 5", "ok", bus.writeError, bus.writeError,
      ])
    let messages = try end(process)
    #expect(messages.count == 1 && messages[0].contains("its file was removed"), "\(messages)")
  }

  @Test("a base that is cut off under its overlay", arguments: Bus.allCases)
  func truncatedBase(bus: Bus) throws {
    let base = try makeRaw("base.raw")
    let disk = path("d.qcow2")
    #expect(try Kvmlite.run("disk", "create", "--backing", base, disk).end == .exited(0))
    let process = try start(disk, bus)
    #expect(try answers(process, "r 100", "w 7") == ["ok 0", "ok"])
    try #require(unsafe truncate(base, 8192) == 0)
    // What is new in an unused cluster takes the rest of it from the base.
    #expect(
      try answers(process, "r 100", "w 101", "r 7", "f")
        == [bus.readError, bus.writeError, "ok 7", "ok"])
    #expect(try end(process).count == 3)
    let again = try Kvmlite.run(
      "--disk", "\(disk),bus=\(bus.rawValue)", bus.guest, input: .bytes(Array("q\n".utf8)))
    #expect(again.errors.contains("its base \(base) was changed"), "\(again.errors)")
  }

  @Test("a base that somebody writes under its overlay is told of, once", arguments: Bus.allCases)
  func changedBase(bus: Bus) throws {
    let base = try makeRaw("base.raw")
    let disk = path("d.qcow2")
    #expect(try Kvmlite.run("disk", "create", "--backing", base, disk).end == .exited(0))
    let process = try start(disk, bus)
    #expect(try answers(process, "w 7", "f") == ["ok", "ok"])
    #expect(process.errors.isEmpty)
    // Somebody who knows of no locks.
    let file = try FileHandle(forWritingTo: URL(filePath: base))
    try file.write(contentsOf: Data([1]))
    try file.close()
    #expect(try answers(process, "f", "f") == ["ok", "ok"])
    let messages = try end(process)
    #expect(messages.count == 1, "\(messages)")
    #expect(messages.first?.contains("its base \(base) was changed meanwhile") == true)
  }

  @Test("a base that isn't there: 66, with both names")
  func noBase() throws {
    let base = try makeRaw("base.raw")
    let disk = path("d.qcow2")
    #expect(try Kvmlite.run("disk", "create", "--backing", base, disk).end == .exited(0))
    try FileManager.default.removeItem(atPath: base)
    let run = try Kvmlite.run("--disk", disk)
    #expect(run.end == .exited(66))
    #expect(
      run.errors.contains("\(disk): its backing file: \(base): no such file"), "\(run.errors)")
  }

  @Test("a second writer is refused with the first one's name and number")
  func secondWriter() throws {
    let bus = Bus.mmio
    let base = try makeRaw("base.raw")
    let disk = path("d.qcow2")
    #expect(try Kvmlite.run("disk", "create", "--backing", base, disk).end == .exited(0))
    let first = try start(disk, bus)
    #expect(try answers(first, "w 1") == ["ok"])
    for options in ["", ",readonly"] {
      let second = try Kvmlite.run("--disk", disk + options + ",bus=\(bus.rawValue)", bus.guest)
      #expect(second.end == .exited(66))
      #expect(second.errors.contains("in use by"), "\(second.errors)")
      #expect(second.errors.contains("\(first.identifier)"), "\(second.errors)")
      #expect(second.errors.contains("kvmlite"), "\(second.errors)")
    }
    // The base is read by the first: others may read it, nobody may write it.
    let reader = try Kvmlite.run("disk", "convert", base, path("copy.raw"))
    #expect(reader.end == .exited(0))
    #expect(try Kvmlite.run("--disk", base + ",bus=\(bus.rawValue)", bus.guest).end == .exited(66))
    #expect(try end(first) == [])
  }
}

/// What this process may do on the host.
enum Rights {
  static let canMount = succeeds("unshare --mount mount -t tmpfs none /mnt")
  static let hasPrlimit = succeeds("prlimit true")
  /// Whether there are loop devices.
  static let canLoop =
    canMount
    && succeeds(
      "f=$(mktemp); truncate -s 64K $f; l=$(losetup -f --show $f) && losetup -d $l; s=$?; rm $f; exit $s"
    )

  private static func succeeds(_ command: String) -> Bool {
    let process = try? ChildProcess("/bin/sh", ["-c", command + " >/dev/null 2>&1"])
    return (try? process?.waitForEnd()) == .exited(0)
  }
}
