import Foundation
import TestSupport
import Testing

/// Three machines at once on one root image, each with an overlay of its own.
///
/// The image is scripts/kernels' root.ext4: 96 MiB with Debian's busybox, run by Debian's stock kernel.
@Suite(
  "Overlays under stock Linux kernels", .needsKVM, .needsRingZero, .needsKernels, .serialized,
  .limited)
struct OverlayTests {
  private let scratch: URL

  init() throws {
    scratch = FileManager.default.temporaryDirectory.appending(path: "base-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
  }

  private func path(_ name: String) -> String { scratch.appending(path: name).path }

  /// The output of a program that must end with 0.
  @discardableResult
  private func output(_ program: String, _ arguments: String...) throws -> String {
    let process = try ChildProcess(program, arguments, deadline: Deadline(seconds: 300))
    guard try process.waitForEnd() == .exited(0) else {
      throw Overdue("\(program) \(arguments): \(process.outputText) \(process.errorText)")
    }
    return process.outputText
  }

  private func start(_ overlay: String) throws -> ChildProcess {
    // The guest says when it is there, and goes on when it is told who it is.
    let command =
      "echo READY; read me; cat /mine; echo I am $me >/mine; sync; "
      + "echo 3 >/proc/sys/vm/drop_caches; echo DONE; read go; cat /mine"
    return try ChildProcess(
      Kvmlite.path,
      ["--memory", "160M", "--disk", overlay]
        + Kernels.linux("devices", append: "quiet ROOT=/dev/vda RUN=\"\(command)\""),
      input: .pipe, deadline: Deadline(seconds: 300))
  }

  @Test("three machines on one base each see their own writes; the base stays as it was")
  func threeMachines() throws {
    defer { try? FileManager.default.removeItem(at: scratch) }
    let base = path("root.ext4")
    try FileManager.default.copyItem(atPath: Kernels.path("root.ext4"), toPath: base)
    let hash = try output("/usr/bin/sha256sum", base)
    let overlays = (1...3).map { path("\($0).qcow2") }
    for overlay in overlays {
      try output(Kvmlite.path, "disk", "create", "--backing", base, overlay)
    }

    let machines = try overlays.map(start)
    for machine in machines { try machine.waitForOutput("READY") }
    // All three run, and none has written its name: they do so in turn, and then look again.
    for (number, machine) in machines.enumerated() {
      machine.type("\(number + 1)\n")
      try machine.waitForOutput("DONE")
    }
    for (number, machine) in machines.enumerated() {
      let second = try ChildProcess(Kvmlite.path, ["--disk", overlays[number]])
      #expect(try second.waitForEnd() == .exited(66))
      #expect(second.errorText.contains("in use by kvmlite"), "\(second.errorText)")
      machine.type("go\n")
      #expect(try machine.waitForEnd() == .exited(0))
      let text = machine.outputText
      #expect(text.contains("read: data: OK") && text.contains("written: OK"))
      #expect(text.contains("can't open '/mine'"), "\(text)")
      #expect(text.contains("I am \(number + 1)"), "\(text)")
      for other in 1...3 where other != number + 1 { #expect(!text.contains("I am \(other)")) }
      #expect(!text.contains("I/O error") && !text.contains("EXT4-fs error"), "\(text)")
    }

    #expect(try output("/usr/bin/sha256sum", base) == hash)
    for (number, overlay) in overlays.enumerated() {
      try output(Kvmlite.path, "disk", "check", overlay)
      try output("/usr/bin/qemu-img", "check", "-q", overlay)
      let map = try output(Kvmlite.path, "disk", "map", "--json", overlay)
      #expect(map.contains("\"depth\": 0") && map.contains("\"depth\": 1"), "\(map)")
      let raw = path("contents")
      try output("/usr/bin/qemu-img", "convert", "-O", "raw", overlay, raw)
      #expect(try output("/usr/sbin/debugfs", "-R", "cat /mine", raw) == "I am \(number + 1)\n")
      try output("/usr/sbin/e2fsck", "-fn", raw)
    }
  }

  @Test("a block device holds the root file system, and gets its free space back")
  func blockDevice() throws {
    let image = path("root.ext4")
    try FileManager.default.copyItem(atPath: Kernels.path("root.ext4"), toPath: image)
    defer { try? FileManager.default.removeItem(at: scratch) }
    // Three sectors more: no whole number of pages.
    let file = try FileHandle(forWritingTo: URL(filePath: image))
    try file.truncate(atOffset: try file.seekToEnd() + 3 * 512)
    try file.close()
    let device = try output("/usr/sbin/losetup", "--find", "--show", image)
      .trimmingCharacters(in: .newlines)
    defer { _ = try? output("/usr/sbin/losetup", "--detach", device) }
    let command =
      "cat /sys/block/vda/size; cat /data /data >/more; sync; rm /more; sync; fstrim -v /"
    let machine = try ChildProcess(
      Kvmlite.path,
      ["--disk", device + ",format=raw"]
        + Kernels.linux("devices", append: "quiet ROOT=/dev/vda RUN=\"\(command)\""),
      deadline: Deadline(seconds: 300))
    #expect(try machine.waitForEnd() == .exited(0))
    let text = machine.outputText
    #expect(text.contains("read: data: OK") && text.contains("written: OK"))
    #expect(text.contains("\(96 * 2048 + 3)"), "\(text)")
    #expect(text.contains("bytes) were trimmed") || text.contains("bytes trimmed"), "\(text)")
    #expect(!text.contains("I/O error") && !text.contains("EXT4-fs error"), "\(text)")
    #expect(machine.errorText == "")
    // The two copies of 20 MB are gone from the host's disk, too.
    let blocks = try output("/usr/bin/stat", "-c", "%b", image)
      .trimmingCharacters(in: .newlines)
    #expect(try #require(Int(blocks)) * 512 < 64 << 20)
    try output("/usr/sbin/e2fsck", "-fn", device)
  }
}
