import Devices
import Host
import Memory
import Storage
import TestSupport
import Testing

@testable import VhostUser

/// One side of a connection whose other side is a test.
struct Peer: ~Copyable {
  var channel: MessageChannel

  init(_ socket: consuming UnixSocket) { channel = MessageChannel(socket) }

  /// Sends raw bytes with open files.
  func send(_ bytes: [UInt8], _ files: [Int32] = []) throws {
    try channel.socket.send(bytes.span, descriptors: files)
  }

  /// Sends a sound message.
  func send(_ message: VhostUserMessage, _ files: [Int32] = []) throws {
    try channel.send(message, descriptors: files)
  }

  /// Answers a question before it is asked.
  func answer(_ request: VhostUserMessage.Request, _ payload: [UInt8]) throws {
    var reply = VhostUserMessage(request, payload)
    reply.flags = [.version, .reply]
    try channel.send(reply)
  }
}

/// Calls `body` with a socket and the test's side of it.
func withPeer(_ body: (consuming UnixSocket, inout Peer) throws -> Void) throws {
  var other: UnixSocket?
  let socket = try UnixSocket(pairedWith: &other)
  guard let other = other.take() else { return }
  var peer = Peer(other)
  try body(socket, &peer)
}

/// A disk of zeros that takes all.
final class NullDisk: BlockStore {
  let size: UInt64 = 1 << 20
  let isReadOnly = false
  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    for segment in segments { segment.zero(0, count: segment.count) }
  }
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}

/// Waits until `event` is raised, but not for ever.
func waitUntilRaised(_ event: borrowing Event) throws { try waitUntilReady(event.descriptor) }

/// Waits until there is something to read from `file`, or its end, but not for ever.
func waitUntilReady(_ file: borrowing FileDescriptor) throws {
  let deadline = Deadline(seconds: 30)
  let poller = try Poller()
  _ = try poller.add(file, tag: 0)
  while poller.next(milliseconds: deadline.milliseconds) == nil {
    if deadline.isOver { throw Overdue("nothing came in time") }
  }
}
