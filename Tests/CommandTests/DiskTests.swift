import Foundation
import TestSupport
import Testing

@Suite("kvmlite disk", .limited, .sameOnEachHost)
struct DiskTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  private func path(_ name: String) -> String { "\(scratch.path)/\(name)" }

  private func disk(_ arguments: String...) throws -> Kvmlite.Result {
    try Kvmlite.end(of: Kvmlite.start(["disk"] + arguments))
  }

  private func contents(_ name: String) throws -> Data {
    try Data(contentsOf: URL(filePath: path(name)))
  }

  @Test("create, convert, rebase and commit keep what a disk holds")
  func roundTrip() throws {
    let bytes = Data((0..<300_032).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) })
    try bytes.write(to: URL(filePath: path("base.raw")))
    #expect(try disk("create", "--backing", "base.raw", path("one.qcow2")).end == .exited(0))
    #expect(try disk("create", "--backing", "one.qcow2", path("two.qcow2")).end == .exited(0))
    #expect(try disk("convert", path("two.qcow2"), path("out.raw")).end == .exited(0))
    #expect(try contents("out.raw").prefix(bytes.count) == bytes)
    #expect(try disk("rebase", "--no-backing", path("two.qcow2")).end == .exited(0))
    try Data(count: 300_032).write(to: URL(filePath: path("base.raw")))
    #expect(
      try disk("convert", "--force", path("two.qcow2"), path("out.raw")).end == .exited(0))
    #expect(try contents("out.raw").prefix(bytes.count) == bytes)
    #expect(
      try disk("rebase", "--unsafe", "--backing", "base.raw", path("two.qcow2")).end == .exited(0))
    #expect(try disk("commit", path("two.qcow2")).end == .exited(0))
    #expect(try contents("base.raw") == bytes)
    let map = try disk("map", "--json", path("two.qcow2"))
    let extents = try JSONSerialization.jsonObject(with: Data(map.outputBytes)) as? [[String: Any]]
    #expect(extents?.allSatisfy { $0["depth"] as? Int != 0 } == true)
    let check = try disk("check", "--json", path("two.qcow2"))
    let found = try JSONSerialization.jsonObject(with: Data(check.outputBytes)) as? [String: Any]
    #expect(found?["sound"] as? Bool == true && check.end == .exited(0))
  }

  @Test("sizes are read and told with fractions")
  func sizes() throws {
    #expect(try disk("create", "--size", "1.5G", path("d.qcow2")).errors.contains("1.5 GiB"))
    #expect(try disk("create", "--size", "1800MiB", path("e.qcow2")).errors.contains("1.7 GiB"))
    #expect(try disk("info", path("e.qcow2")).output.contains("1.7 GiB (1887436800 bytes)"))
  }

  @Test("a base that changed is told of, by run and by info")
  func changedBase() throws {
    try Data(count: 4096).write(to: URL(filePath: path("base.raw")))
    _ = try disk("create", "--backing", "base.raw", path("one.qcow2"))
    #expect(try !disk("info", path("one.qcow2")).output.contains("changed"))
    try Data(count: 8192).write(to: URL(filePath: path("base.raw")))
    #expect(try disk("info", path("one.qcow2")).output.contains("changed"))
  }

  @Test("what is there is kept, and each kind of failure has its status")
  func failures() throws {
    try Data("precious".utf8).write(to: URL(filePath: path("x.raw")))
    #expect(try disk("create", "--size", "1M", path("x.raw")).end == .exited(64))
    #expect(try disk("convert", path("x.raw"), path("x.raw")).end == .exited(64))
    #expect(try contents("x.raw") == Data("precious".utf8))
    #expect(try disk("create", path("y.qcow2")).end == .exited(64))
    #expect(try disk("info", path("none")).end == .exited(66))
    try Data([0x51, 0x46, 0x49, 0xFB] + [UInt8](repeating: 9, count: 600))
      .write(to: URL(filePath: path("bad.qcow2")))
    let bad = try disk("check", path("bad.qcow2"))
    #expect(bad.end == .exited(65) && bad.errors.contains("qcow2 of version"))
    let names = try FileManager.default.contentsOfDirectory(atPath: scratch.path)
    #expect(names.sorted() == ["bad.qcow2", "x.raw"])
  }

  @Test("an overlay never replaces an image that it is based on")
  func ownBase() throws {
    try Data((0..<4096).map { UInt8(truncatingIfNeeded: $0) })
      .write(to: URL(filePath: path("base.raw")))
    let before = try contents("base.raw")
    #expect(
      try disk("create", "--force", "--backing", "base.raw", path("base.raw")).end == .exited(66))
    _ = try disk("create", "--backing", "base.raw", path("one.qcow2"))
    #expect(
      try disk("create", "--force", "--backing", "one.qcow2", path("base.raw")).end == .exited(66))
    #expect(try contents("base.raw") == before)
  }

  @Test("output that can't be written is an error")
  func fullOutput() throws {
    _ = try disk("create", "--size", "1M", path("a.qcow2"))
    let shell = "exec \"$0\" disk map --svg \"$1\" > /dev/full"
    let process = try ChildProcess("/bin/sh", ["-c", shell, Kvmlite.path, path("a.qcow2")])
    let result = try Kvmlite.end(of: process)
    #expect(result.end == .exited(71) && result.errors.contains("No space left"))
  }

  @Test("a base's name that QEMU takes for a protocol's is refused while the overlay is made")
  func colon() throws {
    try Data(count: 4096).write(to: URL(filePath: path("a:b.raw")))
    let refused = try disk("create", "--backing", "a:b.raw", path("one.qcow2"))
    #expect(refused.end == .exited(64) && refused.errors.contains("./a:b.raw"))
    #expect(try disk("create", "--backing", "./a:b.raw", path("one.qcow2")).end == .exited(0))
    #expect(try disk("map", path("one.qcow2")).end == .exited(0))
  }

  @Test("info tells what is known where a base is missing")
  func whatIsKnown() throws {
    try Data(count: 4096).write(to: URL(filePath: path("base.raw")))
    _ = try disk("create", "--backing", "base.raw", path("one.qcow2"))
    try FileManager.default.removeItem(atPath: path("base.raw"))
    let info = try disk("info", path("one.qcow2"))
    #expect(info.end == .exited(66) && info.output.contains("base.raw (raw)"))
    #expect(info.errors.contains("no such file"))
  }

  @Test(
    "an interrupted convert leaves nothing behind", .needsQEMUImage, arguments: [SIGINT, SIGKILL])
  func interrupted(signal: Int32) throws {
    // All of it is in the file, as holes: nobody is through it soon.
    let make = try ChildProcess(
      "/usr/bin/qemu-img",
      [
        "create", "-f", "qcow2", "-o", "compat=0.10,preallocation=metadata", path("a.qcow2"), "64G",
      ])
    #expect(try make.waitForEnd() == .exited(0))
    let process = try ChildProcess(
      Kvmlite.path, ["disk", "convert", path("a.qcow2"), path("b.qcow2")],
      terminal: TestTerminal())
    try process.waitForOutput("0 %")
    process.send(signal)
    #expect(try process.waitForEnd() == .killed(signal))
    #expect(scratch.names == ["a.qcow2"])
  }

  @Test("a picture of whose clusters are whose")
  func picture() throws {
    _ = try disk("create", "--size", "10M", path("a.qcow2"))
    let map = try disk("map", "--svg", path("a.qcow2"))
    #expect(map.output.hasPrefix("<svg") && map.output.contains("10 MiB"))
  }
}
