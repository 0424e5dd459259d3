import Host
import Memory
import Network
import Synchronization
import TestSupport
import Testing

@Suite(.limited) struct StreamBackEndTests {
  private final class Ends {
    let ours: StreamBackEnd
    let theirs: FileDescriptor

    init() throws {
      let (first, second) = try StreamSocket.makePair()
      theirs = FileDescriptor(owning: second)
      ours = try StreamBackEnd(FileDescriptor(owning: first), name: "peer")
    }
  }

  private func view(_ bytes: [UInt8]) throws -> MemoryView {
    let view = try MemoryView(scratch: max(bytes.count, 1))
    view.copy(from: bytes.span, at: 0)
    return view.slice(0, count: bytes.count)
  }

  private func content(_ view: MemoryView, _ range: Range<Int>) -> [UInt8] {
    range.map { view.load($0, as: UInt8.self) }
  }

  private func frame(_ count: Int, _ seed: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ seed) }
  }

  private func write(_ bytes: [UInt8], to socket: borrowing FileDescriptor) throws {
    #expect(try socket.send(bytes.span) == bytes.count)
  }

  @Test func `each frame goes behind its length`() throws {
    let ends = try Ends()
    let sent = ends.ours.send(
      header: try view([UInt8](repeating: 9, count: 12)),
      [try view(frame(100, 1)), try view(frame(200, 2))], count: 300, queue: 0, mayWait: { false })
    #expect(sent)
    #expect(try ends.theirs.read(atMost: 1000) == [0, 0, 1, 44] + frame(100, 1) + frame(200, 2))
  }

  @Test func `frames are cut from the stream, in however many pieces they come`() throws {
    let ends = try Ends()
    let buffer = try MemoryView(scratch: NetworkFrame.bufferCount)
    let stream = [0, 0, 0, 60] + frame(60, 1) + [0, 0, 1, 0] + frame(256, 2)
    for (index, byte) in stream.enumerated() {
      try write([byte], to: ends.theirs)
      let input = try ends.ours.receive(into: buffer, queue: 0)
      switch index {
      case 63:
        #expect(input == .frame(72))
        #expect(content(buffer, 0..<72) == [UInt8](repeating: 0, count: 12) + frame(60, 1))
      case stream.count - 1:
        #expect(input == .frame(268))
        #expect(content(buffer, 12..<268) == frame(256, 2))
      default: #expect(input == .nothing)
      }
    }
  }

  @Test func `a stream that is full loses no byte of a frame that has begun to go`() throws {
    let ends = try Ends()
    let header = try view([UInt8](repeating: 0, count: 12))
    var sent: [Int] = []
    var got: [UInt8] = []
    for number in 0..<200 {
      let bytes = frame(60000, number)
      if ends.ours.send(
        header: header, [try view(bytes)], count: bytes.count, queue: 0, mayWait: { false })
      {
        sent.append(number)
      }
      // A reader that takes less than is sent.
      if number % 3 == 0 { got += (try? ends.theirs.read(atMost: 30000)) ?? [] }
    }
    #expect(sent.count < 200)
    let last = frame(14, 0)
    var isFlushed = false
    while !isFlushed || got.count < sent.count * 60004 {
      got += (try? ends.theirs.read(atMost: 1 << 20)) ?? []
      if !isFlushed {
        isFlushed = ends.ours.send(
          header: header, [try view(last)], count: 14, queue: 0, mayWait: { false })
      }
    }
    for (index, number) in sent.enumerated() {
      let start = index * 60004
      #expect(got[start..<start + 4] == [0, 0, 0xEA, 0x60])
      #expect(got[start + 4..<start + 60004] == frame(60000, number)[...], "frame \(number)")
    }
  }

  @Test("a peer that lies is no network any more", arguments: [0, 13, 65554, UInt32.max])
  func lies(length: UInt32) throws {
    let ends = try Ends()
    try write((0..<4).map { UInt8(truncatingIfNeeded: length >> (24 - 8 * $0)) }, to: ends.theirs)
    let buffer = try MemoryView(scratch: NetworkFrame.bufferCount)
    #expect(throws: NetworkError.self) { try ends.ours.receive(into: buffer, queue: 0) }
  }

  @Test func `a peer that has gone is said`() throws {
    let (first, second) = try StreamSocket.makePair()
    let ours = try StreamBackEnd(FileDescriptor(owning: first), name: "peer")
    do { _ = FileDescriptor(owning: second) }
    let buffer = try MemoryView(scratch: NetworkFrame.bufferCount)
    let error = #expect(throws: NetworkError.self) { try ours.receive(into: buffer, queue: 0) }
    #expect(error?.description == "peer has ended: the guest's network cable is out")
    #expect(!ours.send(header: buffer, [buffer.slice(0, count: 60)], count: 60, queue: 0) { true })
  }
}
