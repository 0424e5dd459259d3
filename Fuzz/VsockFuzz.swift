import Host
import Memory
import Network

@testable import Devices

/// Lets a guest and programs of the host say what they like to each other's connections.
///
/// The input: steps of eight bytes, of which the first chooses who does something.
@_cdecl("LLVMFuzzerTestOneInput")
public func vsockFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard let memory, let host = try? FuzzHost(),
    var connections = try? VsockConnections(cid: 3, host: host)
  else { return 0 }
  for step in stride(from: 0, to: input.count - 7, by: 8) {
    let bytes = Array(input[step..<step + 8])
    switch bytes[0] % 8 {
    case 0: host.connect(bytes)
    case 1: host.act(bytes)
    case 2: give(&connections, room: 45 + Int(bytes[1]) * 64, memory)
    default:
      if !connections.isFull { take(&connections, bytes, memory) }
    }
    connections.takeEvents()
    precondition(connections.count <= VsockConnections.most)
  }
  give(&connections, room: 4096, memory)
  connections.removeAll()
  precondition(connections.count == 0 && !connections.hasOutput)
  return 0
}

private let memory = try? GuestMemory(ramSize: 0x2_0000)

private func take(_ connections: inout VsockConnections, _ bytes: [UInt8], _ memory: GuestMemory) {
  var packet = VsockPacket()
  packet.sourceCID = bytes[0] & 0x80 == 0 ? 3 : UInt64(bytes[1])
  packet.destinationCID = 2
  packet.sourcePort = UInt32(bytes[1] & 3)
  packet.destinationPort = UInt32(bytes[2] & 7) | (bytes[2] & 0x80 != 0 ? 0x4000_0000 : 0)
  packet.operation = UInt16(bytes[3] % 9)
  packet.type = bytes[3] < 250 ? 1 : UInt16(bytes[4])
  packet.flags = UInt32(bytes[4])
  packet.bufferSize = UInt32(bytes[5]) << UInt32(bytes[6] & 31)
  packet.forwarded = UInt32(bytes[7]) &* 997
  let data = Int(bytes[4]) * 256
  packet.length = bytes[6] & 0xC0 == 0xC0 ? UInt32(data) + UInt32(bytes[5]) : UInt32(data)
  guard let view = try? memory.view(at: 0, count: UInt64(data)) else { return }
  connections.take(packet, data > 0 ? [view] : [], count: data)
}

private func give(_ connections: inout VsockConnections, room: Int, _ memory: GuestMemory) {
  guard let view = try? memory.writableView(at: 0x1000, count: UInt64(room)) else { return }
  var chain = DescriptorChain()
  chain.restart(at: 0)
  chain.addWritable(view.extracting(0..<20))
  chain.addWritable(view.extracting(20..<room))
  var packets = 0
  while connections.hasOutput, packets < 2000 {
    guard let packet = connections.give(chain) else { break }
    precondition(VsockPacket.count + Int(packet.length) <= room)
    packets += 1
  }
}

/// Sockets without names, and who has their other ends. One thread uses it.
private final class FuzzHost: VsockHost, @unchecked Sendable {
  private final class Program {
    let socket: FileDescriptor
    init(_ number: Int32) { socket = FileDescriptor(owning: number) }
  }

  private let event: Event
  private var programs: [Program] = []
  private var waiting: [Int32] = []

  init() throws(Errno) { event = try Event() }
  deinit { for number in waiting { _ = FileDescriptor(owning: number) } }

  var listenerDescriptor: Int32 { event.descriptor.number }
  func close() {}

  private func pair() -> Int32? {
    guard programs.count < 40, let (ours, theirs) = try? StreamSocket.makePair() else { return nil }
    programs.append(Program(theirs))
    return ours
  }

  func accept() -> FileDescriptor? { waiting.popLast().map { FileDescriptor(owning: $0) } }

  func connect(port: UInt32) -> FileDescriptor? {
    guard port & 1 == 0, let number = pair() else { return nil }
    return FileDescriptor(owning: number)
  }

  func connect(_ bytes: [UInt8]) {
    guard let number = pair(), let program = programs.last else { return }
    let line = bytes[1] & 0xF0 == 0 ? Array(bytes[2...]) : Array("CONNECT \(bytes[1] & 3)\n".utf8)
    _ = try? program.socket.send(line.span)
    waiting.append(number)
    event.raise()
  }

  func act(_ bytes: [UInt8]) {
    guard !programs.isEmpty else { return }
    let index = Int(bytes[1]) % programs.count
    switch bytes[2] % 5 {
    case 0: _ = try? programs[index].socket.send([UInt8](repeating: 1, count: Int(bytes[3]) * 300).span)
    case 1: _ = try? programs[index].socket.read(atMost: Int(bytes[3]) * 2000 + 1)
    case 2: programs[index].socket.shutDown(.sending)
    case 3: programs[index].socket.shutDown(.receiving)
    default: programs.remove(at: index)
    }
  }
}
