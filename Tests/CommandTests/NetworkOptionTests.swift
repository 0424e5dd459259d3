import Foundation
import Testing
import TestSupport

@Suite("--net and --vsock")
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

  @Test("a machine with a socket runs, and leaves no socket", .needsKVM)
  func vsock() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/socket"
    let result = try Kvmlite.run("--vsock", "cid=3,socket=\(path)", "--net", "none", "--verbose")
    #expect(result.end == .exited(0))
    #expect(result.errors.contains("virtio-vsock"))
    #expect(scratch.names == [])
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
