import Foundation
import TestSupport
import Testing

/// Devices whose back ends are files that whoever starts kvmlite left open.
@Suite("Back ends that are open files", .limited)
struct OpenFileTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func spec(_ parts: String) throws -> String {
    try scratch.file("vm.json", Array("{\"version\": 1, \(parts)}".utf8))
  }

  private func disk(_ backEnd: String) throws -> String {
    try spec(
      """
      "image": "guest:virtio-block", "virtioBus": "mmio",
      "devices": [{"type": "disk", "backend": {\(backEnd)}}]
      """)
  }

  /// kvmlite with these arguments and redirections of a shell's.
  private func run(_ arguments: [String], _ redirections: String) throws -> Kvmlite.Result {
    try Kvmlite.run(
      arguments, by: ["/bin/sh", "-c", "cd \(scratch.path); exec \"$@\" \(redirections)", "sh"])
  }

  @Test("a disk is used", .needsKVM)
  func disk() throws {
    let image = try scratch.file("d.img", [UInt8](repeating: 0, count: 64 << 10))
    let result = try run(["--config", disk("\"fd\": 5")], "5<>d.img")
    #expect(result.end == .exited(1) && result.output.hasSuffix("read back, all right\n"))
    #expect(try Data(contentsOf: URL(filePath: image)).contains { $0 != 0 })
  }

  @Test("an overlay's base is found where it is", .needsKVM)
  func overlay() throws {
    _ = try scratch.file("base", [UInt8](repeating: 0, count: 64 << 10))
    let made = try Kvmlite.run(
      "disk", "create", "--backing", "base", "--backing-format", "raw", scratch.path + "/o.qcow2")
    #expect(made.end == .exited(0), "\(made.errors)")
    let result = try run(["--config", disk("\"fd\": 9")], "9<>o.qcow2")
    #expect(result.output.hasSuffix("read back, all right\n"), "\(result.errors)")
  }

  @Test("a console prints there", .needsKVM)
  func console() throws {
    let result = try run(
      ["--config", spec("\"consoles\": [{\"backend\": {\"fd\": 6}}]")], "6>out")
    #expect(result.end == .exited(0) && result.output.isEmpty)
    let text = try String(contentsOfFile: scratch.path + "/out", encoding: .utf8)
    #expect(text == "Hello from real mode!\n")
  }

  @Test("a machine in the background has its own too, and not a second time", .needsKVM)
  func background() throws {
    let machines = try NamedMachines()
    _ = try scratch.file("d.img", [UInt8](repeating: 0, count: 64 << 10))
    let up = ["up", "--name", "box", "--config", try disk("\"fd\": 5")]
    let first = try machines.run(up, after: "exec 5<>\(scratch.path)/d.img")
    #expect(first.end == .exited(0), "\(first.errors)")
    #expect(try machines.run("wait", "box").end == .exited(1))
    #expect(try machines.run("logs", "box").output.contains("read back, all right"))
    let again = try machines.run(["up", "box"], after: "exec 5<&-")
    #expect(again.end == .exited(66) && again.errors.contains("file descriptor 5"))
  }

  @Test(
    "what can't be used is said",
    arguments: [
      ("\"fd\": 5", "5<&-", 66, "file descriptor 5: isn't open"),
      ("\"fd\": 5", "5<d.img", 66, "d.img: open for reading alone, which needs ,readonly"),
      ("\"fd\": 5", "5<>/dev/null", 66, "neither a file nor a block device"),
      ("\"fd\": 5, \"path\": \"d.img\"", "5<>d.img", 64, "one of path, fd and socket"),
      ("\"fd\": 2", "", 64, "an open file's number from 3"),
      ("\"fd\": \"5\"", "", 64, "an open file's number from 3"),
    ])
  func refusals(backEnd: String, redirection: String, status: Int32, words: String) throws {
    _ = try scratch.file("d.img", [UInt8](repeating: 0, count: 64 << 10))
    let result = try run(["--config", disk(backEnd)], redirection)
    #expect(result.end == .exited(status) && result.errors.contains(words), "\(result.errors)")
  }

  @Test("one file isn't for two devices")
  func twice() throws {
    let file = try spec(
      """
      "devices": [{"type": "disk", "backend": {"fd": 5}}, {"type": "net", "backend": {"fd": 5}}]
      """)
    let result = try run(["--config", file], "5<>/dev/null")
    #expect(result.end == .exited(64) && result.errors.contains("not for several"))
  }

  @Test("a queue of a tap interface is used; one without headers is refused", .needsKVM, .needsTun)
  func tap() throws {
    let name = "kl\(UInt32.random(in: 0 ... .max))"
    let good = try Kvmlite.run(["--net", "fd=7"], by: OpenFiles.tap(name, at: 7))
    #expect(good.end == .exited(0) && good.output == "Hello from real mode!\n", "\(good.errors)")
    let bare = try Kvmlite.run(
      ["--net", "fd=7"], by: OpenFiles.tap(name, at: 7, hasHeaders: false))
    #expect(bare.end == .exited(66) && bare.errors.contains("IFF_VNET_HDR"), "\(bare.errors)")
    let other = try run(["--net", "fd=7"], "7<>/dev/null")
    #expect(other.end == .exited(66) && other.errors.contains("no open tap interface's"))
  }

  @Test("a socket that listens is used, and has to be open", .needsKVM)
  func vsock() throws {
    let file = try spec(
      "\"devices\": [{\"type\": \"vsock\", \"cid\": 3, \"backend\": {\"fd\": 8}}]")
    let listener = OpenFiles.listener(at: scratch.path + "/s", as: 8)
    let good = try Kvmlite.run(["--config", file], by: listener)
    #expect(good.end == .exited(0) && good.output == "Hello from real mode!\n", "\(good.errors)")
    #expect(scratch.names.contains("s"))
    let closed = try run(["--config", file], "8<&-")
    #expect(closed.end == .exited(66) && closed.errors.contains("file descriptor 8 isn't open"))
  }
}

extension Trait where Self == ConditionTrait {
  /// Skips a test where there are no tap interfaces to be made.
  fileprivate static var needsTun: Self {
    .enabled(
      if: FileManager.default.isWritableFile(atPath: "/dev/net/tun") && getuid() == 0,
      "needs /dev/net/tun and root")
  }
}
