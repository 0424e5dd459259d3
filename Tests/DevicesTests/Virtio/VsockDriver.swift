import Devices
import Host
import Memory
import Network
import Testing

/// The driver's side of a vsock device, with real Unix sockets on the host's side.
final class VsockDriver {
  struct Packet: Equatable {
    var operation: UInt16
    var guestPort: UInt32
    var hostPort: UInt32
    var data: [UInt8] = []
    var flags: UInt32 = 0
    var bufferSize: UInt32 = 65536
    var forwarded: UInt32 = 0
    // What only hostile guests have otherwise.
    var source: UInt64 = VsockDriver.cid
    var destination: UInt64 = 2
    var type: UInt16 = 1
    var length: UInt32?
  }

  static let cid: UInt64 = 42
  static let request: UInt16 = 1
  static let response: UInt16 = 2
  static let reset: UInt16 = 3
  static let shutdown: UInt16 = 4
  static let data: UInt16 = 5
  static let creditUpdate: UInt16 = 6
  static let creditRequest: UInt16 = 7

  let driver: MMIODriver
  let device: VirtioVsock
  let host: VsockSockets
  private let outgoing = MMIODriver.buffers
  private let incoming = MMIODriver.buffers + 0x4_0000
  private static let bufferSize = 0x1_0000

  init() throws {
    var random = [UInt8](repeating: 0, count: 8)
    var span = random.mutableSpan
    try RandomBytes.fill(&span)
    let name = random.map { String($0, radix: 16) }.joined()
    host = try VsockSockets(path: "/tmp/kvmlite-vsock-\(name)")
    device = try VirtioVsock(cid: Self.cid, host: host)
    driver = try MMIODriver(device)
    driver.start()
    for _ in 0..<8 { post() }
  }

  func stop() {
    driver.stop()
    host.close()
  }

  private var posted = 0
  func post() {
    let address = incoming + UInt64(posted % 8) * UInt64(Self.bufferSize)
    posted += 1
    driver.queues[0].add([
      .init(address: address, count: 44, isWritten: true),
      .init(address: address + 44, count: UInt32(Self.bufferSize - 44), isWritten: true),
    ])
    driver.ring(0)
  }

  /// Sends a packet, and waits until the device has taken it.
  func send(_ packet: Packet) throws {
    var bytes: [UInt8] = []
    func add<T: FixedWidthInteger>(_ value: T) {
      for shift in stride(from: 0, to: T.bitWidth, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: value >> T(shift)))
      }
    }
    add(packet.source)
    add(packet.destination)
    add(packet.guestPort)
    add(packet.hostPort)
    add(packet.length ?? UInt32(packet.data.count))
    add(packet.type)
    add(packet.operation)
    add(packet.flags)
    add(packet.bufferSize)
    add(packet.forwarded)
    driver.queues[1].write(bytes + packet.data, at: outgoing)
    driver.queues[1].add([.init(address: outgoing, count: UInt32(44 + packet.data.count))])
    _ = try driver.complete(1)
  }

  /// The next packet that the device has for the guest.
  func next() throws -> Packet {
    let part = try driver.next(0)
    let queue = driver.queues[0]
    let address = queue.get(
      queue.addresses.descriptors + 16 * UInt64(part.head), as: UInt64.self)
    func get<T: FixedWidthInteger & BitwiseCopyable>(_ offset: UInt64, _ type: T.Type) -> T {
      queue.get(address + offset, as: type)
    }
    let length = get(24, UInt32.self)
    #expect(part.written == 44 + length)
    #expect(get(0, UInt64.self) == 2)
    #expect(get(8, UInt64.self) == Self.cid)
    let packet = Packet(
      operation: get(30, UInt16.self), guestPort: get(20, UInt32.self),
      hostPort: get(16, UInt32.self), data: queue.bytes(Int(length), at: address + 44),
      flags: get(32, UInt32.self), bufferSize: get(36, UInt32.self),
      forwarded: get(40, UInt32.self), type: get(28, UInt16.self))
    post()
    return packet
  }

  // MARK: The host's programs

  /// A program of the host's that has connected.
  final class Program {
    let socket: FileDescriptor
    init(_ socket: consuming FileDescriptor) { self.socket = socket }

    func write(_ bytes: [UInt8]) throws {
      var done = 0
      while done < bytes.count {
        do throws(Errno) {
          done += try socket.send(bytes.span.extracting(done..<bytes.count))
        } catch {
          guard error == .tryAgain else { throw error }
          HostThread.yield()
        }
      }
    }

    /// What came, once there is something; nothing means the end.
    func read(_ most: Int = 65536) throws -> [UInt8] {
      var result: [UInt8]?
      #expect(
        waitUntil {
          do throws(Errno) { result = try socket.read(atMost: most) } catch {
            if error != .tryAgain { result = [] }
          }
          return result != nil
        })
      return try #require(result)
    }

    func read(count: Int) throws -> [UInt8] {
      var bytes: [UInt8] = []
      while bytes.count < count {
        let more = try read(count - bytes.count)
        if more.isEmpty { break }
        bytes += more
      }
      return bytes
    }
  }

  func connect(_ greeting: String) throws -> Program {
    let program = Program(try StreamSocket.connect(to: host.path))
    try program.write(Array(greeting.utf8))
    return program
  }

  /// A program's connection to `port` of the guest, which has accepted.
  func open(port: UInt32, bufferSize: UInt32 = 65536) throws -> (program: Program, hostPort: UInt32)
  {
    let program = try connect("CONNECT \(port)\n")
    let request = try next()
    #expect(request.operation == Self.request)
    #expect(request.guestPort == port)
    try send(
      Packet(
        operation: Self.response, guestPort: port, hostPort: request.hostPort,
        bufferSize: bufferSize))
    let answer = "OK \(request.hostPort)\n"
    #expect(try program.read(count: answer.utf8.count) == Array(answer.utf8))
    return (program, request.hostPort)
  }
}
