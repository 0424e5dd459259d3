import Host
import Memory
import TestSupport
import Testing

@testable import VhostUser

@Suite("vhost-user messages", .limited)
struct MessageTests {
  @Test("come whole from the smallest pieces, with their files")
  func pieces() throws {
    try withPeer { socket, peer in
      let event = try Event()
      var receiver = MessageChannel(socket)
      let bytes = VhostUserMessage(.setRingKick, .numbers(UInt64(3))).bytes
      for (index, byte) in bytes.enumerated() {
        #expect(try receiver.next() == nil)
        try peer.send([byte], index == 0 ? [event.descriptor.number] : [])
      }
      let message = try #require(try receiver.next())
      #expect(message.request == .setRingKick)
      #expect(message.payload == .numbers(UInt64(3)))
      #expect(message.files.count == 1)
      // It is the same event by another number.
      _ = try Event(adopting: message.files[0].file.duplicate()).raise()
      let isRaised = event.isRaised
      #expect(isRaised)
    }
  }

  @Test("of which one follows another stay apart")
  func apart() throws {
    try withPeer { socket, peer in
      var receiver = MessageChannel(socket)
      try peer.send(
        VhostUserMessage(.setOwner).bytes + VhostUserMessage(.getFeatures).bytes)
      #expect(try receiver.next()?.request == .setOwner)
      #expect(try receiver.next()?.request == .getFeatures)
      #expect(try receiver.next() == nil)
    }
  }

  @Test("that end too early are the connection's end")
  func truncated() throws {
    let bytes = VhostUserMessage(.setRingKick, .numbers(UInt64(3))).bytes
    for count in 0..<bytes.count {
      try withPeer { socket, peer in
        var receiver = MessageChannel(socket)
        if count > 0 { try peer.send(Array(bytes.prefix(count))) }
        peer.channel.socket.endSending()
        #expect(throws: VhostUserError.closed) { _ = try receiver.next() }
      }
    }
  }

  @Test(
    "with impossible headers are refused before anything is made for them",
    arguments: [
      [UInt32](arrayLiteral: 1, 0, 0), [1, 2, 0], [1, 1, 1025], [1, 1, UInt32.max],
    ])
  func headers(words: [UInt32]) throws {
    try withPeer { socket, peer in
      var receiver = MessageChannel(socket)
      try peer.send(.numbers(words[0], words[1], words[2]))
      do throws(VhostUserError) {
        _ = try receiver.next()
        Issue.record("it was taken")
      } catch {
        if case .malformed = error { return }
        Issue.record("\(error)")
      }
    }
  }

  @Test("with more files than any has are refused, and none of them stays open")
  func tooManyFiles() throws {
    try withPeer { socket, peer in
      let pipe = try Pipe()
      var receiver = MessageChannel(socket)
      let files = [Int32](repeating: pipe.writing.number, count: 8)
      try peer.send([1, 0], files)
      try peer.send([0, 0], files)
      #expect(throws: VhostUserError.self) { _ = try receiver.next() }
      _ = consume receiver
      // A pipe tells when nobody can write to it any more.
      let reading = pipe.closeWriting()
      try waitUntilReady(reading)
    }
  }

  @Test("to one who doesn't read are given up, not waited for")
  func unread() throws {
    try withPeer { socket, peer in
      let message = VhostUserMessage(.getFeatures, [UInt8](repeating: 0, count: 1024))
      do throws(VhostUserError) {
        for _ in 0..<100_000 { try peer.channel.send(message) }
        Issue.record("they went nowhere")
      } catch {
        if case .malformed = error { return }
        Issue.record("\(error)")
      }
      _ = consume socket
    }
  }
}
