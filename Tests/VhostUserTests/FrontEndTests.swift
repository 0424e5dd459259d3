import Devices
import Host
import Memory
import TestSupport
import Testing

@testable import VhostUser

@Suite("vhost-user front end", .limited)
struct FrontEndTests {
  private static let sound = VirtioFeatures.version1.union([.bit(30), .bit(12)]).rawValue
  private static let configuration = [UInt8](repeating: 0, count: 12) + (1...60)

  /// What a back end answers to the five questions of a greeting.
  private struct Answers {
    var features: [UInt8] = .numbers(FrontEndTests.sound)
    var protocolFeatures: [UInt8] = .numbers(ProtocolFeatures.known.rawValue)
    var queueCount: [UInt8] = .numbers(UInt64(4))
    var configuration = FrontEndTests.configuration

    func send(_ peer: borrowing Peer) throws {
      try peer.answer(.getFeatures, features)
      try peer.answer(.getProtocolFeatures, protocolFeatures)
      try peer.answer(.getQueueCount, queueCount)
      try peer.answer(.getConfiguration, configuration)
    }
  }

  /// Why a back end is refused.
  private func refusal(
    _ socket: consuming UnixSocket, within seconds: Double = 30
  ) -> VhostUserError? {
    do throws(VhostUserError) {
      _ = try FrontEndLink(socket, within: seconds) { false }
      return nil
    } catch { return error }
  }

  private func expectRefusal(_ answers: Answers) throws {
    try withPeer { socket, peer in
      try answers.send(peer)
      peer.channel.socket.endSending()
      #expect(refusal(socket) != nil)
    }
  }

  @Test("learns what a back end is")
  func greeting() throws {
    try withPeer { socket, peer in
      try Answers().send(peer)
      let link = try FrontEndLink(socket) { false }
      #expect(link.features == VirtioFeatures.version1.union(.bit(12)))
      #expect(link.queueCount == 4)
      #expect(link.configuration == Array(1...60))
      let asked = try (0..<6).map { _ in try peer.channel.next()?.request }
      #expect(
        asked == [
          .getFeatures, .getProtocolFeatures, .setProtocolFeatures, .getQueueCount, .setOwner,
          .getConfiguration,
        ])
    }
  }

  @Test("does not wait for ever for one that says nothing")
  func silence() throws {
    try withPeer { socket, peer in
      #expect(refusal(socket, within: 0.01) == .silent)
    }
  }

  @Test("refuses back ends that lack what it needs or answer in the wrong way")
  func refusals() throws {
    try expectRefusal(Answers(features: .numbers(VirtioFeatures.bit(30).rawValue)))
    try expectRefusal(Answers(features: .numbers(VirtioFeatures.version1.rawValue)))
    try expectRefusal(Answers(features: [1, 2, 3]))
    try expectRefusal(Answers(protocolFeatures: .numbers(UInt64(9))))
    try expectRefusal(Answers(queueCount: .numbers(UInt64(0))))
    try expectRefusal(Answers(queueCount: .numbers(UInt64.max)))
    try expectRefusal(Answers(configuration: []))
    try expectRefusal(Answers(configuration: [UInt8](repeating: 0, count: 73)))
  }

  @Test("takes a question of the back end's for no answer, nor one with files")
  func wrongAnswers() throws {
    try withPeer { socket, peer in
      try peer.send(VhostUserMessage(.getFeatures, .numbers(Self.sound)))
      #expect(refusal(socket) != nil)
    }
    try withPeer { socket, peer in
      try peer.answer(.getQueueCount, .numbers(Self.sound))
      peer.channel.socket.endSending()
      #expect(refusal(socket)?.description.contains("getQueueCount instead of") == true)
    }
    try withPeer { socket, peer in
      let event = try Event()
      var reply = VhostUserMessage(.getFeatures, .numbers(Self.sound))
      reply.flags = [.version, .reply]
      try peer.send(reply, [event.descriptor.number])
      #expect(refusal(socket) != nil)
    }
  }

  @Test("shares RAM alone, and tells of refusals")
  func begins() throws {
    try withPeer { socket, peer in
      try Answers().send(peer)
      var link = try FrontEndLink(socket) { false }
      let rom = (start: GuestAddress(0xFFFF_0000), contents: [UInt8](repeating: 1, count: 4096))
      let memory = try GuestMemory(ramSize: 1 << 20, roms: [rom], isShareable: true)
      try peer.answer(.setFeatures, .numbers(UInt64(0)))
      try peer.answer(.setMemoryTable, .numbers(UInt64(0)))
      try link.begin(.version1, memory)
      for _ in 0..<7 { _ = try peer.channel.next() }
      let message = try #require(try peer.channel.next())
      let table = try MemoryTable(message)
      #expect(table.memory.regions.map(\.count) == [1 << 20])
      #expect(table.guestAddress(of: memory.regions[0].mapping.address + 5) == 5)
      try memory.write([7, 8].span, at: 0x1000)
      #expect(try table.memory.read(2, at: 0x1000) == [7, 8])

      try peer.answer(.setFeatures, .numbers(UInt64(1)))
      #expect(throws: VhostUserError.unsupported("the other side refused setFeatures")) {
        try link.begin(.version1, memory)
      }
    }
  }
}
