import Host
import Network
import TestSupport
import Testing

@Suite(.limited) struct MACAddressTests {
  @Test("is read as it is written", arguments: ["52:54:00:12:34:56", "02:00:00:00:00:0f"])
  func reads(text: String) {
    #expect(MACAddress(text)?.description == text)
  }

  @Test(
    "is nothing else",
    arguments: [
      "", "52:54:00:12:34", "52:54:00:12:34:56:78", "52-54-00-12-34-56", "52:54:0:12:34:56",
      "+2:54:00:12:34:56", "53:54:00:12:34:56", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00",
    ])
  func refuses(text: String) {
    #expect(MACAddress(text) == nil)
  }

  @Test func `comes out the same for the same name, and locally administered`() {
    let one = MACAddress(stableFor: "tap tap0")
    #expect(one == MACAddress(stableFor: "tap tap0"))
    #expect(one != MACAddress(stableFor: "tap tap1"))
    #expect(one.bytes[0] & 3 == 2)
  }
}

@Suite(.limited) struct VsockSocketsTests {
  private let path = "/tmp/kvmlite-sockets-\(Clock.monotonicNanoseconds)"

  @Test func `a socket that a dead program left is replaced, one in use is not`() throws {
    // Under another name the socket stays when its listener goes.
    do {
      let dead = try UnixListener(at: path + "-dead")
      try FileName.move(dead.path, to: path, replaces: true)
    }
    // A copy of this process that another test makes has it until it becomes another program.
    let deadline = Deadline()
    while (try? UnixSocket(connectingTo: path)) != nil, !deadline.isOver { HostThread.yield() }
    let sockets = try VsockSockets(path: path)
    let error = #expect(throws: NetworkError.self) { try VsockSockets(path: path) }
    #expect(error?.description.contains("in use") == true)
    #expect(FileDescriptor.exists(path))
    sockets.close()
    #expect(!FileDescriptor.exists(path))
    let next = try VsockSockets(path: path)
    sockets.close()
    #expect(FileDescriptor.exists(path), "another's by now")
    // Somebody takes the name away, and a third one has it.
    FileName.remove(path)
    let third = try VsockSockets(path: path)
    next.close()
    #expect(FileDescriptor.exists(path), "the third's")
    third.close()
    #expect(!FileDescriptor.exists(path))
  }

  @Test func `a file that is no socket stays`() throws {
    let file = try FileDescriptor(opening: path, [.writeOnly, .create, .exclusive])
    try file.writeAll("mine")
    defer { FileName.remove(path) }
    #expect(throws: NetworkError.self) { try VsockSockets(path: path) }
    #expect(try FileDescriptor(opening: path, [.readOnly]).read(atMost: 10) == Array("mine".utf8))
  }

  @Test func `a path that is too long is said`() {
    let error = #expect(throws: NetworkError.self) {
      try VsockSockets(path: "/tmp/" + String(repeating: "x", count: 120))
    }
    #expect(error?.description.contains("at most 107 bytes") == true)
  }
}

@Suite(.limited) struct TapBackEndTests {
  @Test func `what is missing is said with what to type`() {
    let error = #expect(throws: NetworkError.self) { try TapBackEnd("nosuchtap0") }
    let expected =
      FileDescriptor.exists("/dev/net/tun")
      ? "sudo ip tuntap add nosuchtap0 mode tap user $USER" : "sudo modprobe tun"
    #expect(error?.description.contains(expected) == true)
  }
}
