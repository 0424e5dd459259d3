import Foundation
import Host
import Testing
import TestSupport

@Suite("--net and --vsock", .limited, .sameOnEachHost)
struct NetworkOptionTests {
  @Test(
    "what makes no sense is refused",
    arguments: [
      "tap", "tap=", "tap=a/b", "tap=sixteen-letters-", "none,mac=02:00:00:00:00:01",
      "user,queues=2",
      "user,mac=03:00:00:00:00:01", "user,mtu=67", "user,mtu=70000", "tap=a,queues=0",
      "tap=a,queues=17", "tap=a,", "wire",
    ])
  func refusedNetwork(value: String) throws {
    #expect(try Kvmlite.run("--net", value).end == .exited(64))
  }

  @Test(
    "addresses that no guest can have, and no path, are refused",
    arguments: [
      "cid=2,socket=/tmp/x", "cid=4294967295,socket=/tmp/x", "cid=x,socket=/tmp/x", "cid=3",
      "cid=3,socket=", "socket=/tmp/x,cid=3",
    ])
  func refusedVsock(value: String) throws {
    #expect(try Kvmlite.run("--vsock", value).end == .exited(64))
  }

  @Test("an interface that isn't there is said, with what to type")
  func noInterface() throws {
    let result = try Kvmlite.run("--net", "tap=kvmlite-none")
    #expect(result.end == .exited(66))
    let hint =
      FileManager.default.fileExists(atPath: "/dev/net/tun")
      ? "sudo ip tuntap add kvmlite-none mode tap user $USER" : "sudo modprobe tun"
    #expect(result.errors.contains("kvmlite: --net: "))
    #expect(result.errors.contains(hint))
  }

  @Test("without passt it is said how to get it")
  func noPasst() throws {
    let result = try Kvmlite.run(["--net", "user"], by: ["env", "PATH=/nonexistent"])
    #expect(result.end == .exited(66))
    #expect(result.errors.contains("sudo apt install passt"))
  }

  @Test("what passt says has its name before it, and its end is told without a driver", .needsKVM)
  func passt() throws {
    let scratch = try Scratch()
    let script = """
      #!/bin/sh
      echo "files: $(cd /proc/$$/fd; echo [0-9])" >&2
      echo "no interface" >&2
      exit 3
      """
    let program = try scratch.file("passt", Array(script.utf8))
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program)
    // The shell that starts it has a file open that is nobody's business.
    let command = "PATH=\(scratch.path):$PATH; exec 9</etc/passwd; exec \"$@\""
    let process = try ChildProcess(
      "/bin/sh",
      ["-c", command, "sh", Kvmlite.path, "--net", "user", "guest:spin", "--timeout", "60"])
    try process.waitForErrors("passt ended with status 3: the guest's network cable is out")
    #expect(process.errorText.contains("kvmlite: passt: no interface\n"))
    // 3 is the network's end; the shell has its script at 10.
    #expect(process.errorText.contains("kvmlite: passt: files: 0 1 2 3"))
    #expect(!process.errorText.contains(" 9\n"))
    process.send(15)
    _ = try process.waitForEnd()
  }

  @Test("a machine with a socket runs, and leaves no socket", .needsKVM)
  func vsock() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/socket"
    let result = try Kvmlite.run("--vsock", "cid=3,socket=\(path)", "--net", "none", "--verbose")
    #expect(result.end == .exited(0))
    #expect(result.errors.contains("virtio-vsock"))
    #expect(scratch.names == [])
  }

  @Test("a guest and a program at its socket talk", .needsKVM)
  func talk() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/socket"
    let vsock = ["--vsock", "cid=3,socket=\(path)", "--virtio-bus", "mmio", "guest:virtio-vsock"]
    #expect(
      try Kvmlite.run(vsock, by: ["env"]).output == "nobody listens at port 5000 of the host\n")

    let listener = try UnixListener(at: path + "_5000")
    let guest = try ChildProcess(Kvmlite.path, vsock)
    listener.descriptor.waitUntilReadable(milliseconds: Deadline().milliseconds)
    guard let peer = try listener.descriptor.accept() else { throw Overdue("a guest's call") }
    var heard: [UInt8] = []
    while heard.count < 5 {
      peer.waitUntilReadable(milliseconds: Deadline().milliseconds)
      let piece = try peer.read(atMost: 5 - heard.count)
      if piece.isEmpty { break }
      heard += piece
    }
    #expect(heard == Array("ping\n".utf8))
    _ = try peer.send(Array("pong\n".utf8).span)
    peer.shutDown(.sending)
    #expect(try guest.waitForEnd() == .exited(0))
    #expect(guest.output == Array("pong\n".utf8))
  }

  @Test("a socket in use is said")
  func inUse() throws {
    let scratch = try Scratch()
    let path = try scratch.file("file", [1])
    let result = try Kvmlite.run("--vsock", "cid=3,socket=\(path)")
    #expect(result.end == .exited(66))
    #expect(result.errors.contains("\(path): in use, or no socket"))
  }
}
