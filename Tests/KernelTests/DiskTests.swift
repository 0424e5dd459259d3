import Foundation
import Testing
import TestSupport

/// Debian's cloud kernel on a root file system that is on a disk of kvmlite's.
@Suite(
  "Disks of stock Linux kernels", .needsKVM, .needsRingZero, .needsKernels, .serialized, .limited)
struct DiskTests {
  private let scratch: URL

  init() throws {
    scratch = FileManager.default.temporaryDirectory.appending(path: "disks-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
  }

  /// Boots from `disk` to the end of the root file system's own checks and returns what was printed.
  private func boot(_ disk: String, root: String, _ options: [String] = []) throws -> String {
    let run = try ChildProcess(
      Kvmlite.path,
      options + ["--disk", disk]
        + Kernels.linux(
          "devices",
          append: "ROOT=\(root) RUN=\"cat /proc/interrupts /sys/class/ata_device/*/dma_mode\""),
      deadline: Deadline(seconds: 300))
    #expect(try run.waitForEnd() == .exited(0))
    try FileManager.default.removeItem(at: scratch)
    return run.outputText
  }

  /// A copy of the root file system's image, for one test to write to.
  private func image() throws -> String {
    let copy = scratch.appending(path: "root.ext4").path
    try FileManager.default.copyItem(atPath: Kernels.path("root.ext4"), toPath: copy)
    return copy
  }

  private func expectChecked(_ output: String, _ root: String) {
    #expect(output.contains("root: \(root) ext4"))
    #expect(output.contains("read: data: OK"))
    #expect(output.contains("written: OK"))
    #expect(!output.contains("I/O error") && !output.contains("EXT4-fs error"))
  }

  @Test("hold the root file system by virtio on PCI, with messages for interrupts")
  func virtio() throws {
    let output = try boot(image() + ",bus=virtio", root: "/dev/vda", ["--cpus", "2"])
    expectChecked(output, "/dev/vda")
    #expect(output.contains("PCI-MSI"))
  }

  @Test("hold it by virtio on the MMIO transport")
  func mmio() throws {
    expectChecked(try boot(image() + ",bus=mmio", root: "/dev/vda"), "/dev/vda")
  }

  @Test("hold it by IDE, with DMA and without complaint")
  func ide() throws {
    let output = try boot(image() + ",bus=ide", root: "/dev/sda")
    expectChecked(output, "/dev/sda")
    #expect(output.contains("MWDMA2"))
    #expect(!output.contains("lost interrupt") && !output.contains("soft reset"))
    #expect(!output.contains("failed command"))
  }
}
