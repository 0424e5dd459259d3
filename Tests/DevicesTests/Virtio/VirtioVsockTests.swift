import Devices
import Foundation
import Host
import Memory
import Network
import TestSupport
import Testing

@Suite(.limited) struct VirtioVsockTests {
  private func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
  }

  @Test func `a program of the host talks to one of the guest, both ways, to the end`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    #expect(vsock.driver.device.read(offset: 0x100, width: 4) == 42)
    let (program, port) = try vsock.open(port: 80)

    try program.write(bytes(5000))
    var got: [UInt8] = []
    while got.count < 5000 { got += try vsock.next().data }
    #expect(got == bytes(5000))
    try vsock.send(
      .init(operation: VsockDriver.data, guestPort: 80, hostPort: port, data: bytes(3000)))
    #expect(try program.read(count: 3000) == bytes(3000))

    program.socket.shutDown(.sending)
    let half = try vsock.next()
    #expect(half.operation == VsockDriver.shutdown)
    #expect(half.flags == 2)
    try vsock.send(.init(operation: VsockDriver.data, guestPort: 80, hostPort: port, data: [1, 2]))
    #expect(try program.read() == [1, 2])
    try vsock.send(.init(operation: VsockDriver.shutdown, guestPort: 80, hostPort: port, flags: 3))
    #expect(try vsock.next().operation == VsockDriver.reset)
    #expect(try program.read() == [])
    #expect(vsock.device.connectionCount == 0)
  }

  @Test func `a guest's connection goes to the socket of its port, or is refused`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    try vsock.send(.init(operation: VsockDriver.request, guestPort: 9, hostPort: 5000))
    let refusal = try vsock.next()
    #expect(refusal.operation == VsockDriver.reset)
    #expect(refusal.guestPort == 9 && refusal.hostPort == 5000)

    let path = vsock.host.path + "_5000"
    let listener = try UnixListener(at: path, waits: false)
    try vsock.send(.init(operation: VsockDriver.request, guestPort: 9, hostPort: 5000))
    let answer = try vsock.next()
    #expect(answer.operation == VsockDriver.response)
    #expect(answer.bufferSize > 0)
    guard let accepted = try listener.descriptor.accept() else {
      Issue.record("nobody has connected")
      return
    }
    let program = VsockDriver.Program(accepted)
    try vsock.send(
      .init(operation: VsockDriver.data, guestPort: 9, hostPort: 5000, data: [7, 8, 9]))
    #expect(try program.read(count: 3) == [7, 8, 9])
    try program.write([1])
    #expect(try vsock.next().data == [1])
    try vsock.send(.init(operation: VsockDriver.shutdown, guestPort: 9, hostPort: 5000, flags: 3))
    #expect(try vsock.next().operation == VsockDriver.reset)
  }

  @Test func `the host's side may be a socket that somebody else listens at`() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "vsock-\(UUID())").path
    let theirs = try UnixListener(at: path, waits: false)
    let host = try VsockSockets(listener: theirs.descriptor.number)
    func hasCalled() -> Bool { if host.accept() != nil { true } else { false } }
    #expect(!hasCalled())
    let program = try StreamSocket.connect(to: path)
    #expect(program.number >= 0 && hasCalled())
    let answer = try host.connect(port: 5000)?.number
    #expect(answer == nil)
    host.close()
    #expect(FileManager.default.fileExists(atPath: path))
  }

  @Test(
    "who doesn't say CONNECT and a port is sent away",
    arguments: [
      "HELLO\n", "CONNECT\n", "CONNECT -1\n", "CONNECT 4294967296\n", "CONNECT 1 2\n",
      String(repeating: "C", count: 100),
    ])
  func greeting(text: String) throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let program = try vsock.connect(text)
    #expect(try program.read() == [])
    #expect(waitUntil { vsock.device.connectionCount == 0 })
  }

  @Test func `a guest without a listener refuses`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let program = try vsock.connect("CONNECT 7\n")
    let request = try vsock.next()
    try vsock.send(.init(operation: VsockDriver.reset, guestPort: 7, hostPort: request.hostPort))
    #expect(try program.read() == [])
    #expect(vsock.device.connectionCount == 0)
  }

  @Test func `a program that gives up before the guest answered is forgotten`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    var program: VsockDriver.Program? = try vsock.connect("CONNECT 7\n")
    let request = try vsock.next()
    program = nil
    _ = program
    let reset = try vsock.next()
    #expect(reset.operation == VsockDriver.reset)
    #expect(reset.hostPort == request.hostPort)
    #expect(vsock.device.connectionCount == 0)
  }

  // MARK: Credit

  @Test func `no more goes to the guest than it has room for`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, port) = try vsock.open(port: 80, bufferSize: 100)
    try program.write(bytes(250))
    #expect(try vsock.next().data == Array(bytes(250)[..<100]))
    #expect(try vsock.next().operation == VsockDriver.creditRequest)
    // Room that isn't there: it claims to have passed on more than it got.
    try vsock.send(
      .init(
        operation: VsockDriver.creditUpdate, guestPort: 80, hostPort: port, bufferSize: 100,
        forwarded: 5000))
    try vsock.send(
      .init(
        operation: VsockDriver.creditUpdate, guestPort: 80, hostPort: port, bufferSize: 100,
        forwarded: 60))
    #expect(try vsock.next().data == Array(bytes(250)[100..<160]))
    #expect(try vsock.next().operation == VsockDriver.creditRequest)
    try vsock.send(
      .init(
        operation: VsockDriver.creditUpdate, guestPort: 80, hostPort: port, bufferSize: 1000,
        forwarded: 160))
    #expect(try vsock.next().data == Array(bytes(250)[160...]))
  }

  @Test func `a slow program's guest is told of its room, and cut off when it goes beyond`() throws
  {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, port) = try vsock.open(port: 80)
    try vsock.send(.init(operation: VsockDriver.creditRequest, guestPort: 80, hostPort: port))
    let told = try vsock.next()
    #expect(told.operation == VsockDriver.creditUpdate)
    #expect(told.forwarded == 0)
    let size = told.bufferSize
    // Nobody reads: what the socket doesn't take fills the device's buffer.
    var sent: UInt32 = 0
    var forwarded: UInt32 = 0
    let chunk: UInt32 = 32768
    while sent &- forwarded <= size - chunk {
      try vsock.send(
        .init(
          operation: VsockDriver.data, guestPort: 80, hostPort: port, data: bytes(Int(chunk))))
      sent += chunk
      try vsock.send(.init(operation: VsockDriver.creditRequest, guestPort: 80, hostPort: port))
      // An update may come of itself before the one that was asked for.
      let update = try vsock.next()
      #expect(update.operation == VsockDriver.creditUpdate)
      forwarded = update.forwarded
    }
    // The program reads: room comes back by itself.
    var read = 0
    while read < Int(sent) { read += try program.read().count }
    #expect(read == Int(sent))
    #expect(try vsock.next().forwarded > forwarded)
    try vsock.send(
      .init(
        operation: VsockDriver.data, guestPort: 80, hostPort: port, data: bytes(60000),
        length: 60000))
    #expect(try program.read(count: 60000) == bytes(60000))
  }

  @Test func `data beyond the room that was given ends the connection`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, port) = try vsock.open(port: 80)
    for _ in 0..<40 {
      try vsock.send(
        .init(operation: VsockDriver.data, guestPort: 80, hostPort: port, data: bytes(60000)))
    }
    var packet = try vsock.next()
    while packet.operation == VsockDriver.creditUpdate { packet = try vsock.next() }
    #expect(packet.operation == VsockDriver.reset)
    #expect(vsock.device.connectionCount == 0)
    while try !program.read().isEmpty {}
  }

  // MARK: Ends

  @Test func `a program that has gone makes a shutdown of both sides, after its last bytes`() throws
  {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    var (program, port): (VsockDriver.Program?, UInt32) = try vsock.open(port: 80)
    try program?.write([1, 2, 3])
    program = nil
    #expect(try vsock.next().data == [1, 2, 3])
    var end = try vsock.next()
    if end.flags != 3 { end = try vsock.next() }
    #expect(end.operation == VsockDriver.shutdown)
    #expect(end.flags == 3)
    try vsock.send(.init(operation: VsockDriver.reset, guestPort: 80, hostPort: port))
    #expect(vsock.device.connectionCount == 0)
  }

  @Test func `a program that goes without having read what it was sent resets the connection`()
    throws
  {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    var (program, port): (VsockDriver.Program?, UInt32) = try vsock.open(port: 80)
    try vsock.send(
      .init(operation: VsockDriver.data, guestPort: 80, hostPort: port, data: [1, 2, 3]))
    #expect(program != nil)
    program = nil
    #expect(try vsock.next().operation == VsockDriver.reset)
  }

  @Test func `a program gets all that the guest sent before it was done`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, port) = try vsock.open(port: 80)
    for _ in 0..<5 {
      try vsock.send(
        .init(operation: VsockDriver.data, guestPort: 80, hostPort: port, data: bytes(50000)))
      try vsock.send(.init(operation: VsockDriver.creditRequest, guestPort: 80, hostPort: port))
      _ = try vsock.next()
    }
    try vsock.send(.init(operation: VsockDriver.shutdown, guestPort: 80, hostPort: port, flags: 3))
    try vsock.send(.init(operation: VsockDriver.reset, guestPort: 80, hostPort: port))
    #expect(try program.read(count: 250000).count == 250000)
    #expect(try program.read() == [])
    #expect(waitUntil { vsock.device.connectionCount == 0 })
  }

  @Test func `a reset of the device ends all connections, and new ones can be made`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, _) = try vsock.open(port: 80)
    vsock.driver[0x70] = 0
    #expect(waitUntil { vsock.driver.status == 0 })
    vsock.driver.start()
    for _ in 0..<8 { vsock.post() }
    #expect(try program.read() == [])
    _ = try vsock.open(port: 81)
    #expect(vsock.device.connectionCount == 1)
  }

  @Test func `connections come and go by the hundred`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    for round in 0..<UInt32(Trials.rounds(300)) {
      let (program, port) = try vsock.open(port: round)
      try program.write([UInt8(truncatingIfNeeded: round)])
      #expect(try vsock.next().data == [UInt8(truncatingIfNeeded: round)])
      try vsock.send(
        .init(operation: VsockDriver.shutdown, guestPort: round, hostPort: port, flags: 3))
      #expect(try vsock.next().operation == VsockDriver.reset)
      #expect(try program.read() == [])
    }
    #expect(vsock.device.connectionCount == 0)
  }

  // MARK: Hostile guests

  static let strangers: [VsockDriver.Packet] = [
    .init(operation: 5, guestPort: 1, hostPort: 2, data: [1]),
    .init(operation: 2, guestPort: 1, hostPort: 2), .init(operation: 4, guestPort: 1, hostPort: 2),
    .init(operation: 0, guestPort: 1, hostPort: 2),
    .init(operation: 0xFFFF, guestPort: 1, hostPort: 2),
    .init(operation: 1, guestPort: 1, hostPort: 2, type: 2),
    .init(operation: 1, guestPort: 1, hostPort: 2, type: 0),
  ]

  @Test("packets of no connection are answered with a reset", arguments: strangers)
  func refused(packet: VsockDriver.Packet) throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    try vsock.send(packet)
    let answer = try vsock.next()
    #expect(answer.operation == VsockDriver.reset)
    #expect(answer.guestPort == 1 && answer.hostPort == 2)
    #expect(answer.type == packet.type)
  }

  @Test func `packets from or to others are ignored, and resets never answered`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    try vsock.send(.init(operation: 5, guestPort: 1, hostPort: 1, source: 43))
    try vsock.send(.init(operation: 5, guestPort: 1, hostPort: 1, destination: 3))
    try vsock.send(.init(operation: 5, guestPort: 1, hostPort: 1, destination: .max))
    try vsock.send(.init(operation: 3, guestPort: 1, hostPort: 1))
    try vsock.send(.init(operation: 5, guestPort: 77, hostPort: 1))
    #expect(try vsock.next().guestPort == 77)
  }

  static let violations: [VsockDriver.Packet] = [
    .init(operation: 1, guestPort: 80, hostPort: 0),
    .init(operation: 2, guestPort: 80, hostPort: 0),
    .init(operation: 0, guestPort: 80, hostPort: 0),
    .init(operation: 9, guestPort: 80, hostPort: 0),
    .init(operation: 5, guestPort: 80, hostPort: 0, data: [1, 2, 3], length: 4),
    .init(operation: 5, guestPort: 80, hostPort: 0, data: [1, 2, 3], length: .max),
  ]

  @Test("a packet that an open connection can't have ends it", arguments: violations)
  func endsIt(packet: VsockDriver.Packet) throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    let (program, port) = try vsock.open(port: 80)
    var packet = packet
    packet.hostPort = port
    try vsock.send(packet)
    #expect(try vsock.next().operation == VsockDriver.reset)
    #expect(try program.read() == [])
    #expect(vsock.device.connectionCount == 0)
  }

  @Test func `a guest that makes no room for refusals is not listened to until it does`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    // Eight refusals find buffers, 128 are kept, and what comes after these waits in the ring.
    let ring = vsock.driver.queues[1]
    for port in 0..<136 as Range<UInt32> {
      try vsock.send(.init(operation: VsockDriver.data, guestPort: port, hostPort: 1))
    }
    for _ in 0..<10 { ring.add([.init(address: MMIODriver.buffers, count: 44)]) }
    vsock.driver.ring(1)
    for port in 0..<146 as Range<UInt32> {
      let answer = try vsock.next()
      #expect(answer.operation == VsockDriver.reset)
      #expect(answer.guestPort == min(port, 135))
    }
    for _ in 0..<10 { _ = try vsock.driver.next(1) }
  }

  @Test func `packets that are too short break the device`() throws {
    let vsock = try VsockDriver()
    defer { vsock.stop() }
    vsock.driver.queues[1].add([.init(address: MMIODriver.buffers, count: 43)])
    vsock.driver.ring(1)
    #expect(waitUntil { vsock.driver.status & 64 != 0 })
  }
}
