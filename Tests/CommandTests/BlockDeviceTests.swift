import Foundation
import TestSupport
import Testing

/// Block devices of the host, here loop devices, as disks.
@Suite(
  "Block devices", .needsKVM, .enabled(if: Rights.canLoop, "needs loop devices"), .serialized,
  .limited)
struct BlockDeviceTests {
  private let scratch: Scratch
  init() throws { scratch = try Scratch() }

  /// Runs `guest` with a loop device on `bus`, whose file is `size` bytes in a new file system of
  /// `space`; `after` runs when the guest has ended, with the file as $file.
  private func run(
    size: Int, space: String = "8m", bus: String, guest: String, input: String = "",
    after: String = "true"
  ) throws -> Kvmlite.Result {
    // Each run has its mounts to itself. The device goes when nobody has it open any longer.
    let script = """
      exec unshare --mount sh -ec 'mount -t tmpfs -o size=\(space) none "$0"
      file=$0/file; truncate -s \(size) "$file"; loop=$(losetup -f --show "$file")
      trap "losetup -d $loop" EXIT
      status=0; "$1" --disk "$loop,format=raw,bus=\(bus)" guest:\(guest) || status=$?
      \(after)
      exit $status' "$0" "$1"
      """
    return try Kvmlite.end(
      of: ChildProcess(
        "/bin/sh", ["-ec", script, scratch.path, Kvmlite.path], input: .bytes(Array(input.utf8))))
  }

  @Test("are written and read to the last sector, of any number of sectors")
  func wholeDevice() throws {
    // 131 sectors: neither pages nor the guest's blocks.
    let virtio = try run(size: 131 * 512, bus: "mmio", guest: "virtio-block")
    #expect(virtio.output == "sectors: 131\nwritten\nread back, all right\n")
    #expect(virtio.errors == "" && virtio.end == .exited(1))
    let ide = try run(size: 128 * 512, bus: "ide", guest: "ide-dma")
    #expect(ide.output == "bus master found\nwritten and read: ok\n")
    #expect(ide.errors == "" && ide.end == .exited(0))
  }

  @Test("give back the space of what a guest makes zeros")
  func zeros() throws {
    let commands = (0..<64).map { "w \($0)\n" }.joined() + "f\nr 50\n"
    let clears = (0..<63).map { "z \($0)\n" }.joined() + "f\nr 50\nr 63\nq\n"
    let result = try run(
      size: 64 * 4096, bus: "mmio", guest: "disk-virtio", input: commands + clears,
      after: "sync; stat -c %b \"$file\"")
    let lines = result.output.split(separator: "\n")
    #expect(lines.filter { $0.hasPrefix("error") } == [] && result.errors == "")
    #expect(lines.count == 64 + 2 + 63 + 4)
    #expect(lines[65] == "ok 50" && lines[130] == "ok 0" && lines[131] == "ok 63")
    // All but the last block of 256 KiB.
    #expect(try #require(lines.last.flatMap { Int($0) }) <= 16)
  }

  @Test(
    "whose writes fail later are told of at the flush, and every flush after",
    arguments: ["mmio", "ide"])
  func failingWrites(bus: String) throws {
    // The device's file has no space; the host finds out when it writes its page cache back. Not one
    // block behind the other: of a write in part Linux's loop device says that all went well.
    let error = bus == "mmio" ? "error 1" : "error \(0x51 << 8 | 0x04)"
    let commands = (0..<96).map { "w \($0 * 8)\n" }.joined() + "f\nf\nr 0\nq\n"
    let result = try run(
      size: 4 << 20, space: "128k", bus: bus, guest: bus == "mmio" ? "disk-virtio" : "disk-ide",
      input: commands)
    let lines = result.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 99, "\(result.output) \(result.errors)")
    #expect(lines[96...97] == [error, error])
    #expect(result.end == .exited(0))
    let messages = result.errors.split(separator: "\n")
    #expect(messages.count == 1 && result.errors.contains("flush failed"), "\(result.errors)")
  }
}
