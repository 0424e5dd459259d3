import Devices
import Host
import Memory
import Storage

@testable import VhostUser

/// Sends arbitrary messages to both sides of vhost-user connections.
///
/// The input's first byte chooses: an even one for the back end, an odd one for the front end. For the
/// back end pieces follow: a byte that says which files go with it, two bytes of length, and that many
/// bytes. For the front end the rest is what its back end says, all of it before it is asked.
@_cdecl("LLVMFuzzerTestOneInput")
public func vhostUserFuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = unsafe [UInt8](UnsafeBufferPointer(start: start, count: count))
  guard let first = input.first else { return 0 }
  var other: UnixSocket?
  guard let socket = try? UnixSocket(pairedWith: &other), let peer = other.take() else { return 0 }
  if first & 1 == 0 {
    attackBackEnd(socket, peer, input[1...])
  } else {
    attackFrontEnd(socket, peer, input[1...])
  }
  return 0
}

private func attackBackEnd(
  _ socket: consuming UnixSocket, _ peer: consuming UnixSocket, _ input: ArraySlice<UInt8>
) {
  var session = BackEndSession(device, socket) { _ in }
  defer { session.end() }
  var input = input
  do {
    while input.count > 3 {
      let head = Array(input.prefix(3))
      let count = Int(head[1]) | Int(head[2] & 7) << 8
      let bytes = Array(input.dropFirst(3).prefix(count))
      input = input.dropFirst(3 + count)
      guard !bytes.isEmpty else { continue }
      try peer.send(bytes.span, descriptors: files(head[0]))
      try session.serve()
    }
  } catch {}
}

private func attackFrontEnd(
  _ socket: consuming UnixSocket, _ peer: consuming UnixSocket, _ input: ArraySlice<UInt8>
) {
  do {
    if !input.isEmpty { try peer.send(Array(input.prefix(65536)).span) }
    peer.endSending()
    var link = try FrontEndLink(socket) { false }
    try link.begin(.version1, frontEndMemory)
    for index in 0..<2 { _ = try link.stop(queue: index) }
    try link.check()
  } catch {}
}

/// As many files as the lower half says: memory, events, or a device file, as the upper half says.
private func files(_ choice: UInt8) -> [Int32] {
  let kinds = [memory.fileNumber ?? 0, event.descriptor.number, unsealed.number]
  return [Int32](repeating: kinds[Int(choice >> 4) % 3], count: Int(choice & 15))
}

private let device = VirtioBlock(Disk(), serial: "fuzz", queueCount: 2)
private let memory = try! Mapping(shareable: 1 << 16)
private let frontEndMemory = try! GuestMemory(ramSize: 1 << 16, isShareable: true)
private let event = try! Event()
private let unsealed = try! FileDescriptor(opening: "/dev/zero", .readWrite)

private final class Disk: BlockStore {
  let size: UInt64 = 64 * 512
  let isReadOnly = false
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    for segment in segments { segment.store(7 as UInt8, segment.count - 1) }
  }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}
