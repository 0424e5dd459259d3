import Foundation
import TestSupport
import Testing

/// Debian's, where it is installed.
private let seaBIOS = "/usr/share/seabios/bios-256k.bin"

@Suite(
  "A PC's firmware", .needsKVM,
  .enabled(if: FileManager.default.fileExists(atPath: seaBIOS)), .limited)
struct FirmwareTests {
  @Test("starts a boot sector from a disk on every bus", arguments: ["virtio", "ide", "mmio"])
  func boots(bus: String) throws {
    let sector: [UInt8] = [
      0xBA, 0xF8, 0x03,  // 00: mov dx,0x3f8
      0xB0, 0x42,  //       03: mov al,0x42
      0xEE,  //             05: out dx,al
      0xB0, 0x03,  //       06: mov al,0x3
      0xE6, 0xF4,  //       08: out 0xf4,al
      0xFA,  //             0a: cli
      0xF4,  //             0b: hlt
    ]
    let padding = [UInt8](repeating: 0, count: 510 - sector.count)
    let scratch = try Scratch()
    let disk = scratch.path + "/disk.img"
    try Data(sector + padding + [0x55, 0xAA] + [UInt8](repeating: 0, count: 1 << 20))
      .write(to: URL(filePath: disk))

    let run = try Kvmlite.run("--firmware", seaBIOS, "--disk", "\(disk),bus=\(bus)")

    #expect(run.end == .exited(7), "\(run.errors)")
    // SeaBIOS keeps the end of its own line until a tick, which may come after the sector's letter.
    let after = run.output.components(separatedBy: "Booting from Hard Disk..").last
    #expect(after?.contains("B") == true, "\(run.output)")
  }
}
