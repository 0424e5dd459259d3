import Foundation
import TestSupport
import Testing

@Suite("Disks of other processes", .needsKVM, .limited)
struct VhostUserTests {
  private static let daemon = "/usr/bin/qemu-storage-daemon"
  private static let qemu = "/usr/bin/qemu-system-x86_64"
  private static var hasDaemon: Bool { FileManager.default.fileExists(atPath: daemon) }

  private let scratch: Scratch
  private var socket: String { scratch.path + "/socket" }
  private var image: String { scratch.path + "/disk.raw" }

  init() throws { scratch = try Scratch() }

  private func makeDisk(sectors: Int) throws {
    try Data(count: sectors * 512).write(to: URL(filePath: image))
  }

  /// kvmlite's own back end, ready for connections.
  private func startBackEnd(_ settings: String = "") throws -> ChildProcess {
    let process = try Kvmlite.start(["backend", "block", socket, image + settings])
    try process.waitForErrors("serves \(image)")
    return process
  }

  /// Debian's.
  private func startDaemon() throws -> ChildProcess {
    let process = try ChildProcess(
      Self.daemon,
      [
        "--blockdev", "driver=file,node-name=file,filename=\(image)",
        "--blockdev", "driver=raw,node-name=disk,file=file", "--export",
        "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=\(socket),writable=on",
        "--chardev", "stdio,id=monitor", "--monitor", "monitor",
      ], input: .pipe)
    // Its monitor greets when the exports are there.
    try process.waitForOutput("QMP")
    return process
  }

  private func run() throws -> Kvmlite.Result {
    try Kvmlite.run("--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block")
  }

  private func expectAllRight(_ run: Kvmlite.Result) throws {
    #expect(run.output == "sectors: 128\nwritten\nread back, all right\n")
    #expect(run.errors == "")
    #expect(run.end == .exited(1))
    let contents = try Data(contentsOf: URL(filePath: image))
    for sector in 0..<128 {
      #expect(contents[sector * 512 + 504] == UInt8(sector), "sector \(sector)")
    }
  }

  @Test("kvmlite backend serves one guest after the other, and ends at a signal")
  func backEnd() throws {
    try makeDisk(sectors: 128)
    let backEnd = try startBackEnd()

    try expectAllRight(run())
    try makeDisk(sectors: 128)
    try expectAllRight(run())

    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
    // Each is told once, and counted after that.
    for text in ["a front end has come", "the front end has gone"] {
      #expect(backEnd.errorText.contains("\(socket): \(text)\n"))
      #expect(backEnd.errorText.contains("1 more like this: \(text)\n"))
    }
    #expect(backEnd.errorText.contains("ring 0: "))
    #expect(!FileManager.default.fileExists(atPath: socket))
  }

  @Test("kvmlite backend --once ends with the first guest, and tells what it did")
  func once() throws {
    try makeDisk(sectors: 128)
    let backEnd = try Kvmlite.start(["backend", "block", "--once", socket, image])
    try backEnd.waitForErrors("serves \(image)")
    try expectAllRight(run())
    #expect(try backEnd.waitForEnd() == .exited(0))
    // 128 writes of a sector and as many reads, and a flush.
    #expect(backEnd.errorText.contains(" 257 requests, 131072 bytes, "))
  }

  @Test("qemu-storage-daemon serves one guest after the other", .enabled(if: hasDaemon))
  func storageDaemon() throws {
    try makeDisk(sectors: 128)
    let daemon = try startDaemon()

    try expectAllRight(run())
    try makeDisk(sectors: 128)
    try expectAllRight(run())

    daemon.send(15)
    _ = try daemon.waitForEnd()
  }

  @Test("a disk that can only be read gives a guest's write an error")
  func readOnly() throws {
    try makeDisk(sectors: 128)
    let backEnd = try startBackEnd(",readonly")

    let run = try run()

    #expect(run.output == "sectors: 128\nWRONG\n")
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
  }

  @Test(
    "QEMU's firmware boots from kvmlite's back end",
    .enabled(if: FileManager.default.fileExists(atPath: qemu)))
  func bootsInQEMU() throws {
    let sector: [UInt8] = [
      0xB0, 0x21,  // 00: mov al,0x21
      0xE6, 0xF4,  // 02: out 0xf4,al
      0xF4,  //       04: hlt
    ]
    let padding = [UInt8](repeating: 0, count: 510 - sector.count)
    try Data(sector + padding + [0x55, 0xAA] + [UInt8](repeating: 0, count: 1 << 20)).write(
      to: URL(filePath: image))
    let backEnd = try startBackEnd(",readonly")

    let machine = try ChildProcess(
      Self.qemu,
      [
        "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "32M",
        "-object", "memory-backend-memfd,id=memory,size=32M,share=on",
        "-machine", "memory-backend=memory", "-chardev", "socket,id=disk,path=\(socket)",
        "-device", "vhost-user-blk-pci,chardev=disk,bootindex=0",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
      ])

    #expect(try machine.waitForEnd() == .exited(0x21 << 1 | 1), "\(machine.errorText)")
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
    #expect(!backEnd.errorText.contains("sent away"))
  }

  @Test("a back end that is killed takes the disk down, not the machine", arguments: [true, false])
  func killed(isOurs: Bool) throws {
    guard isOurs || Self.hasDaemon else { return }
    try makeDisk(sectors: 1 << 20)  // takes far longer than the kill
    let backEnd = try isOurs ? startBackEnd() : startDaemon()
    let guest = try Kvmlite.start(
      ["--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block"])
    try guest.waitForOutput("sectors: 1048576\n")

    backEnd.send(9)

    #expect(try guest.waitForEnd() == .exited(7))
    #expect(guest.outputText == "sectors: 1048576\nthe disk is lost\n")
    #expect(guest.errorText.contains("the back end at \(socket) is lost: "))
    #expect(guest.errorText.contains("it waits for a reset by the guest's driver"))
  }

  @Test("several machines at once have an overlay each, and the image stays what it is")
  func overlays() throws {
    try makeDisk(sectors: 128)
    let backEnd = try Kvmlite.start(
      ["backend", "block", socket, image + ",snapshot", "--machines", "2", "--once"])
    try backEnd.waitForErrors("serves \(image)")
    let words = ["--disk", "vhost-user=\(socket),bus=mmio"]
    let first = try Kvmlite.start(words + ["guest:echo"], input: .pipe)
    try first.waitForOutput("Type")
    let second = try run()
    #expect(second.output == "sectors: 128\nwritten\nread back, all right\n")
    #expect(try Data(contentsOf: URL(filePath: image)) == Data(count: 128 * 512))
    // As many as there may be: the first is still there.
    let third = try Kvmlite.start(words + ["guest:echo"], input: .pipe)
    try third.waitForOutput("Type")
    let fourth = try run()
    #expect(fourth.end == .exited(66))
    try backEnd.waitForErrors("another front end was sent away: it serves 2 at a time")
    for guest in [first, third] {
      guest.type("q")
      #expect(try guest.waitForEnd() == .exited(0))
    }
    #expect(try backEnd.waitForEnd() == .exited(0))
    #expect(backEnd.errorText.contains("machine 2: 257 turns\n"))
    #expect(backEnd.errorText.contains("machine 2 has gone\n"))
  }

  @Test("several machines at once may read one disk, and not write to it")
  func readers() throws {
    try makeDisk(sectors: 128)
    let backEnd = try Kvmlite.start(
      ["backend", "block", socket, image + ",readonly", "--machines", "3"])
    try backEnd.waitForErrors("serves \(image)")
    let guests = try (0..<3).map { _ in
      try Kvmlite.start(["--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block"])
    }
    for guest in guests {
      #expect(try Kvmlite.end(of: guest).output == "sectors: 128\nWRONG\n")
    }
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
    let refused = try Kvmlite.run("backend", "block", socket, image, "--machines", "2")
    #expect(refused.end == .exited(64) && refused.errors.contains("add ,snapshot or ,readonly"))
    for count in ["0", "65", "x"] {
      let wrong = try Kvmlite.run("backend", "block", socket, image, "--machines", count)
      #expect(wrong.end == .exited(64))
    }
  }

  @Test("a second machine is sent away at once, and the first goes on")
  func secondMachine() throws {
    try makeDisk(sectors: 1 << 20)
    let backEnd = try startBackEnd()
    let first = try Kvmlite.start(
      ["--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block"])
    try first.waitForOutput("sectors: 1048576\n")

    let second = try run()

    #expect(second.end == .exited(66))
    #expect(second.errors.contains("does it serve another machine?"))
    try backEnd.waitForErrors("another front end was sent away")
    first.send(9)
    #expect(try first.waitForEnd() == .killed(9))
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
  }

  @Test("a guest that is killed leaves the back end to the next one")
  func killedGuest() throws {
    try makeDisk(sectors: 1 << 20)
    let backEnd = try startBackEnd()
    let guest = try Kvmlite.start(
      ["--disk", "vhost-user=\(socket),bus=mmio", "guest:virtio-block"])
    try guest.waitForOutput("sectors: 1048576\n")
    guest.send(9)
    #expect(try guest.waitForEnd() == .killed(9))
    try backEnd.waitForErrors("the front end has gone")
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))

    try makeDisk(sectors: 128)
    let next = try startBackEnd()
    try expectAllRight(run())
    next.send(9)
    #expect(try next.waitForEnd() == .killed(9))

    // The name that a killed one left is no obstacle.
    let last = try startBackEnd()
    last.send(15)
    #expect(try last.waitForEnd() == .exited(0))
  }

  @Test("where nobody listens, and where somebody does already, it is said")
  func refusals() throws {
    let nobody = try run()
    #expect(nobody.end == .exited(66))
    #expect(nobody.errors.contains("\(socket): no disk is served there by vhost-user"))

    try makeDisk(sectors: 128)
    let backEnd = try startBackEnd()
    let other = try scratch.file("other.raw", [UInt8](repeating: 0, count: 512))
    let second = try Kvmlite.run("backend", "block", socket, other)
    #expect(second.end == .exited(71))
    #expect(second.errors.contains("EADDRINUSE"))
    let file = try scratch.file("file", [1, 2, 3])
    let taken = try Kvmlite.run("backend", "block", file, other)
    #expect(taken.end == .exited(71))
    #expect(FileManager.default.contents(atPath: file) == Data([1, 2, 3]))
    #expect(try Kvmlite.run("backend", "block", "", other).end == .exited(71))
    let ide = try Kvmlite.run("--disk", "vhost-user=\(socket),bus=ide", "guest:virtio-block")
    #expect(ide.end == .exited(64))
    #expect(ide.errors.contains("virtio's alone"))
    backEnd.send(15)
    #expect(try backEnd.waitForEnd() == .exited(0))
  }
}
