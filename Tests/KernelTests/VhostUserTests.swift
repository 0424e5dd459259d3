import Foundation
import Testing
import TestSupport

/// Debian's cloud kernel on a root file system that another process serves by vhost-user.
@Suite("Disks of other processes", .needsKVM, .needsRingZero, .needsKernels, .serialized, .limited)
final class VhostUserTests {
  private let scratch: String
  private var socket: String { scratch + "/socket" }
  private var image: String { scratch + "/root.ext4" }
  private let patience = Deadline(seconds: 300)

  init() throws {
    scratch = FileManager.default.temporaryDirectory.appending(path: "vhost-\(UUID())").path
    try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
    try FileManager.default.copyItem(atPath: Kernels.path("root.ext4"), toPath: image)
  }

  deinit { try? FileManager.default.removeItem(atPath: scratch) }

  private func startBackEnd() throws -> ChildProcess {
    let process = try ChildProcess(
      Kvmlite.path, ["backend", "block", socket, image], deadline: patience)
    try process.waitForErrors("serves \(image)")
    return process
  }

  private func startDaemon() throws -> ChildProcess {
    let process = try ChildProcess(
      "/usr/bin/qemu-storage-daemon",
      [
        "--blockdev", "driver=file,node-name=file,filename=\(image)",
        "--blockdev", "driver=raw,node-name=disk,file=file", "--export",
        "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=\(socket),"
          + "writable=on,num-queues=2",
        "--chardev", "stdio,id=monitor", "--monitor", "monitor",
      ], input: .pipe, deadline: patience)
    try process.waitForOutput("QMP")
    return process
  }

  private func expectChecked(_ run: ChildProcess) throws {
    #expect(try run.waitForEnd() == .exited(0))
    let output = run.outputText
    #expect(output.contains("root: /dev/vda ext4"), "\(output) \(run.errorText)")
    #expect(output.contains("read: data: OK"))
    #expect(output.contains("written: OK"))
    #expect(!output.contains("I/O error") && !output.contains("EXT4-fs error"))
  }

  private func boot(bus: String = "virtio", append: String = "") throws -> ChildProcess {
    let run = try ChildProcess(
      Kvmlite.path,
      ["--cpus", "2", "--disk", "vhost-user=\(socket),bus=\(bus)"]
        + Kernels.linux(
          "devices", append: "ROOT=/dev/vda RUN=\"cat /proc/interrupts\" \(append)"),
      deadline: patience)
    try expectChecked(run)
    return run
  }

  @Test("hold the root file system, with messages past kvmlite", arguments: [true, false])
  func messages(isOurs: Bool) throws {
    let backEnd = try isOurs ? startBackEnd() : startDaemon()
    let run = try boot()
    #expect(run.outputText.contains("PCI-MSI"))
    #expect(run.outputText.contains("virtio0-req.1"))
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
  }

  @Test("hold it with the interrupt pin, and on MMIO")
  func lines() throws {
    let backEnd = try startBackEnd()
    let pin = try boot(append: "pci=nomsi")
    #expect(!pin.outputText.contains("PCI-MSI"))
    _ = try boot(bus: "mmio")
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
  }

  @Test("of kvmlite hold it for QEMU too")
  func qemu() throws {
    let backEnd = try startBackEnd()
    let run = try ChildProcess(
      "/usr/bin/qemu-system-x86_64",
      [
        "-accel", "kvm", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
        "-m", "256M", "-object", "memory-backend-memfd,id=memory,size=256M,share=on",
        "-machine", "memory-backend=memory", "-chardev", "socket,id=disk,path=\(socket)",
        "-device", "vhost-user-blk-pci,chardev=disk,num-queues=2",
        "-kernel", Kernels.path("devices/vmlinuz"),
        "-initrd", Kernels.path("devices/initrd.cpio.gz"),
        "-append", "console=ttyS0 quiet reboot=t ROOT=/dev/vda",
      ], deadline: patience)
    try expectChecked(run)
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
    #expect(backEnd.errorText.contains("the front end has gone"))
  }
}
