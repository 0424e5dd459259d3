import Devices
import Host
import Memory
import TestSupport
import Testing

@testable import VhostUser

@Suite("vhost-user back end", .limited)
struct BackEndTests {
  private static let page: UInt64 = 4096
  private static let base: UInt64 = 0x7F00_0000_0000

  /// Sends messages to a session of its own and returns why it ended; nil if it didn't.
  @discardableResult
  private func session(
    _ send: (borrowing Peer) throws -> Void, check: (inout Peer) throws -> Void = { _ in }
  ) throws -> VhostUserError? {
    var reason: VhostUserError?
    try withPeer { socket, peer in
      let device = VirtioBlock(NullDisk(), serial: "s", queueCount: 2)
      var session = BackEndSession(device, socket) { _ in }
      defer { session.end() }
      try send(peer)
      do throws(VhostUserError) { try session.serve() } catch { reason = error }
      try check(&peer)
    }
    return reason
  }

  private func expectRefusal(
    _ sentence: String, at location: SourceLocation = #_sourceLocation,
    _ send: (borrowing Peer) throws -> Void
  ) throws {
    let reason = try session(send)
    #expect(
      reason?.description.contains(sentence) == true, "\(String(describing: reason))",
      sourceLocation: location)
  }

  private func table(_ entries: [MemoryTable.Entry]) -> VhostUserMessage {
    VhostUserMessage(.setMemoryTable, MemoryTable.payload(entries))
  }

  private func entry(
    start: UInt64 = 0, count: UInt64 = 16 * page, address: UInt64 = base, offset: UInt64 = 0
  ) -> MemoryTable.Entry {
    MemoryTable.Entry(start: start, count: count, address: address, offset: offset)
  }

  @Test("answers questions, and acknowledges where that is wanted")
  func answers() throws {
    let reason = try session { peer in
      try peer.send(VhostUserMessage(.getFeatures))
      try peer.send(VhostUserMessage(.getQueueCount))
      try peer.send(
        VhostUserMessage(.setProtocolFeatures, .numbers(ProtocolFeatures.known.rawValue)))
      var owner = VhostUserMessage(.setOwner)
      owner.flags.insert(.needsReply)
      try peer.send(owner)
      let question: [UInt8] = .numbers(UInt32(0), UInt32(8), UInt32(0), UInt64(0))
      try peer.send(VhostUserMessage(.getConfiguration, question))
    } check: { peer in
      let features = try #require(try peer.channel.next())
      #expect(features.flags == [.version, .reply])
      #expect((features.number(at: 0) as UInt64) & 1 << 30 != 0)
      #expect(try peer.channel.next()?.payload == .numbers(UInt64(2)))
      let owner = try #require(try peer.channel.next())
      #expect(owner.request == .setOwner && owner.payload == .numbers(UInt64(0)))
      let configuration = try #require(try peer.channel.next())
      #expect((configuration.number(at: 12) as UInt64) == (1 << 20) / 512)
    }
    #expect(reason == nil)
  }

  @Test("refuses memory that could go away, overlaps, or isn't there")
  func memory() throws {
    let memory = try Mapping(shareable: 1 << 20)
    let file = try #require(memory.fileNumber)
    func refuse(
      _ sentence: String, _ entries: [MemoryTable.Entry], files: Int? = nil,
      at location: SourceLocation = #_sourceLocation
    ) throws {
      try expectRefusal(sentence, at: location) { peer in
        let count = files ?? entries.count
        try peer.send(table(entries), [Int32](repeating: file, count: count))
      }
    }
    try refuse("0 regions", [])
    try refuse("setMemoryTable with 0 open files", [entry()], files: 0)
    try refuse("setMemoryTable with 2 open files", [entry()], files: 2)
    try refuse("can't be mapped", [entry(count: 2 << 20)])
    try refuse("can't be mapped", [entry(offset: 1 << 20)])
    try refuse("can't be mapped", [entry(offset: 1)])
    try refuse("can't be mapped", [entry(count: 0)])
    try refuse("can't be mapped", [entry(count: UInt64.max, offset: Self.page)])
    try refuse("overlap", [entry(), entry(start: Self.page)])
    try refuse("overlap", [entry(start: UInt64.max - 5)])
    try expectRefusal("9 regions") { peer in
      try peer.send(table([MemoryTable.Entry](repeating: entry(), count: 9)))
    }
    try expectRefusal("with 41 bytes") { peer in
      try peer.send(
        VhostUserMessage(.setMemoryTable, MemoryTable.payload([entry()]) + [0]), [file])
    }
    // A file whose owner can cut it: an access behind its end would be the end of the process.
    let path = "/proc/self/exe"
    let plain = try FileDescriptor(opening: path, .readOnly)
    try expectRefusal("sealed") { peer in try peer.send(table([entry()]), [plain.number]) }
  }

  @Test("refuses rings, events and settings that can't be")
  func rings() throws {
    let event = try Event()
    let plain = try FileDescriptor(opening: "/dev/null", .readWrite)
    try expectRefusal("ring 2 of 2") {
      try $0.send(VhostUserMessage(.setRingSize, .numbers(UInt32(2), UInt32(8))))
    }
    try expectRefusal("ring of 65536") {
      try $0.send(VhostUserMessage(.setRingSize, .numbers(UInt32(0), UInt32(65536))))
    }
    let pipe = try Pipe()
    let poller = try Poller()
    for other in [plain.number, pipe.writing.number, poller.descriptor.number] {
      try expectRefusal("no event") {
        try $0.send(VhostUserMessage(.setRingKick, .numbers(UInt64(0))), [other])
      }
    }
    try expectRefusal("0 open files") {
      try $0.send(VhostUserMessage(.setRingCall, .numbers(UInt64(0))))
    }
    try expectRefusal("all the time") {
      try $0.send(VhostUserMessage(.setRingKick, .numbers(UInt64(0x100))))
    }
    try expectRefusal("1 open files") {
      try $0.send(VhostUserMessage(.setOwner), [event.descriptor.number])
    }
    try expectRefusal("not all of which") {
      try $0.send(VhostUserMessage(.setFeatures, .numbers(UInt64.max)))
    }
    try expectRefusal("request 77") { try $0.send(.numbers(UInt32(77), UInt32(1), UInt32(0))) }
    try expectRefusal("configuration space") {
      try $0.send(
        VhostUserMessage(.getConfiguration, .numbers(UInt32(0), UInt32(257), UInt32(0))))
    }
    try expectRefusal("with 7 bytes") {
      try $0.send(VhostUserMessage(.setFeatures, [1, 2, 3, 4, 5, 6, 7]))
    }
  }

  /// Sets ring 0 up as a front end does; `change` spoils it.
  private func setUp(
    _ peer: borrowing Peer, _ memory: Mapping, _ kick: borrowing Event, size: UInt32 = 8,
    descriptors: UInt64 = 0
  ) throws {
    let features = VirtioFeatures.version1.union(.bit(30))
    try peer.send(VhostUserMessage(.setFeatures, .numbers(features.rawValue)))
    try peer.send(table([entry()]), [memory.fileNumber ?? -1])
    try peer.send(VhostUserMessage(.setRingSize, .numbers(UInt32(0), size)))
    try peer.send(
      VhostUserMessage(
        .setRingAddress,
        .numbers(
          UInt32(0), UInt32(0), Self.base + descriptors, Self.base + 0x2000, Self.base + 0x1000,
          UInt64(0))))
    try peer.send(VhostUserMessage(.setRingKick, .numbers(UInt64(0))), [kick.descriptor.number])
    try peer.send(VhostUserMessage(.setRingEnable, .numbers(UInt32(0), UInt32(1))))
  }

  @Test("refuses a ring outside the memory, or of an impossible shape, when it is to start")
  func badRing() throws {
    let memory = try Mapping(shareable: 1 << 20)
    let kick = try Event()
    try expectRefusal("outside the memory") {
      try setUp($0, memory, kick, descriptors: 16 * Self.page)
    }
    try expectRefusal("not all in guest memory") {
      try setUp($0, memory, kick, descriptors: 16 * Self.page - 16)
    }
    try expectRefusal("its size is 7") { try setUp($0, memory, kick, size: 7) }
  }

  /// Puts request `number` in a ring at 0, 0x1000 and 0x2000: read sector 0 into 0x5000, with its
  /// header at 0x4000 and its status at 0x4010.
  private func request(_ memory: MemoryView, number: UInt16) {
    for (index, part) in [(0x4000, 16, 1), (0x5000, 512, 3), (0x4010, 1, 2)].enumerated() {
      memory.store(UInt64(part.0), 16 * index)
      memory.store(UInt32(part.1), 16 * index + 8)
      memory.store(UInt16(part.2), 16 * index + 12)
      memory.store(UInt16(index + 1), 16 * index + 14)
    }
    memory.store(UInt8(0xFF), 0x4010)
    memory.store(UInt8(0xFF), 0x5000)
    memory.store(number, 0x1002)
  }

  @Test("goes on in new memory where it was in the old, under a ring that runs")
  func newMemory() throws {
    let (old, new) = (try Mapping(shareable: 1 << 20), try Mapping(shareable: 1 << 20))
    let (kick, call) = (try SharedEvent(), try SharedEvent())
    request(MemoryView(old), number: 1)
    request(MemoryView(new), number: 2)
    try withPeer { socket, peer in
      var session = BackEndSession(VirtioBlock(NullDisk()), socket) { _ in }
      defer { session.end() }
      try peer.send(
        VhostUserMessage(.setRingCall, .numbers(UInt64(0))), [call.event.descriptor.number])
      try setUp(peer, old, kick.event)
      try session.serve()
      try waitUntilRaised(call.event)
      call.event.consume()
      #expect(MemoryView(old).load(0x2002, as: UInt16.self) == 1)

      try peer.send(table([entry()]), [new.fileNumber ?? -1])
      try session.serve()
      try waitUntilRaised(call.event)
      #expect(MemoryView(new).load(0x2002, as: UInt16.self) == 2)
      #expect(MemoryView(new).load(0x4010, as: UInt8.self) == 0)
      #expect(MemoryView(old).load(0x2002, as: UInt16.self) == 1)
    }
  }

  @Test("leaves a ring alone that a driver spoils, and tells the front end")
  func spoiled() throws {
    let shared = try Mapping(shareable: 1 << 20)
    let (kick, failure) = (try SharedEvent(), try SharedEvent())
    request(MemoryView(shared), number: 1)
    MemoryView(shared).store(UInt64(1) << 40, 16)  // the data's address
    try withPeer { socket, peer in
      var session = BackEndSession(VirtioBlock(NullDisk()), socket) { _ in }
      defer { session.end() }
      try peer.send(
        VhostUserMessage(.setRingError, .numbers(UInt64(0))), [failure.event.descriptor.number])
      try setUp(peer, shared, kick.event)
      try session.serve()
      try waitUntilRaised(failure.event)
      #expect(MemoryView(shared).load(0x2002, as: UInt16.self) == 0)
      // Others of its messages are served as before.
      try peer.send(VhostUserMessage(.getQueueCount))
      try session.serve()
      #expect(try peer.channel.next()?.payload == .numbers(UInt64(1)))
    }
  }

  @Test("serves a ring, raises the front end's event, and says where the ring goes on")
  func serves() throws {
    let shared = try Mapping(shareable: 1 << 20)
    let memory = MemoryView(shared)
    let kick = try Event()
    let call = try Event()
    request(memory, number: 1)
    try withPeer { socket, peer in
      var session = BackEndSession(VirtioBlock(NullDisk()), socket) { _ in }
      defer { session.end() }
      try peer.send(
        VhostUserMessage(.setRingCall, .numbers(UInt64(0))), [call.descriptor.number])
      try setUp(peer, shared, kick)
      try session.serve()
      try waitUntilRaised(call)
      #expect(memory.load(0x2002, as: UInt16.self) == 1)
      #expect(memory.load(0x4010, as: UInt8.self) == 0)
      #expect(memory.load(0x5000, as: UInt8.self) == 0)

      try peer.send(VhostUserMessage(.getRingBase, .numbers(UInt32(0), UInt32(0))))
      try session.serve()
      #expect(try peer.channel.next()?.payload == .numbers(UInt32(0), UInt32(1)))
    }
  }
}
