import Host
import TestSupport
import Testing

@testable import Machine

/// Bytes that tell their place.
private func pattern(_ range: Range<Int>) -> [UInt8] {
  range.map { (place: Int) -> UInt8 in
    let high = place >> 8
    return UInt8(truncatingIfNeeded: (place &* 31) ^ high)
  }
}

@Suite("The record of a console", .limited)
struct ConsoleRecordTests {
  private let directory: TemporaryDirectory
  private var path: String { directory.path + "/console.log" }

  init() throws { directory = try TemporaryDirectory() }

  /// All that is there from `position` on, read in pieces.
  private func contents(_ record: ConsoleRecord, from position: Int = 0) -> (Int, [UInt8]) {
    var (first, bytes): (Int?, [UInt8]) = (nil, [])
    var next = position
    while true {
      let (start, more) = record.read(from: next, atMost: 100_000)
      guard !more.isEmpty else { return (first ?? position, bytes) }
      first = first ?? start
      bytes += more
      next = start + more.count
    }
  }

  @Test("keeps the last part and the one before it, each at its place")
  func parts() throws {
    let record = try ConsoleRecord(at: path)
    let total = ConsoleRecord.partSize * 7 / 2
    for start in stride(from: 0, to: total, by: 4000) {
      let bytes = pattern(start..<min(total, start + 4000))
      #expect(record.append(bytes.span) == nil)
    }
    #expect(record.end == total)
    let (start, bytes) = contents(record)
    #expect(
      bytes.count > ConsoleRecord.partSize && bytes.count <= 2 * ConsoleRecord.partSize + 4000)
    #expect(start + bytes.count == total && bytes == pattern(start..<total))
    #expect(contents(record, from: total - 10).1 == pattern(total - 10..<total))
    #expect(contents(record, from: total).1.isEmpty)
    let later = try ConsoleRecord(at: path)
    #expect(later.runStart == bytes.count && contents(later).1 == bytes)
    #expect(later.append([7].span) == nil)
    #expect(contents(later, from: later.runStart).1 == [7])
  }

  @Test("goes on in memory where no file can be written, and says so once")
  func noFile() throws {
    let record = try ConsoleRecord(at: path)
    let part = [UInt8](repeating: 1, count: ConsoleRecord.partSize)
    #expect(record.append(part.span) == nil)
    // The next part can't be made: the directory is gone.
    FileName.remove(path)
    try PrivateDirectory.remove(directory.path)
    #expect(record.append([2, 3].span) == .noSuchFile)
    #expect(record.append([4].span) == nil)
    for _ in 0..<3 { #expect(record.append(part.span) == nil) }
    let (start, bytes) = contents(record)
    #expect(start + bytes.count == record.end && bytes.suffix(3) == [1, 1, 1])
  }
}

@Suite("A console's viewers", .limited)
struct ConsoleHubTests {
  private let directory: TemporaryDirectory
  private let hub: ConsoleHub

  init() throws {
    directory = try TemporaryDirectory()
    hub = try ConsoleHub(ConsoleRecord(at: directory.path + "/console.log")) { _ in }
  }

  /// The other side of a new viewer.
  private func show(from start: ConsoleHub.Start, mayType: Bool) throws -> UnixSocket {
    var other: UnixSocket?
    let mine = try UnixSocket(pairedWith: &other)
    let theirs = try FileDescriptor(borrowing: other?.descriptor.number ?? -1).duplicate()
    let isShown = try hub.show(at: UnixSocket(theirs), from: start, mayType: mayType)
    #expect(isShown)
    return mine
  }

  /// Sends what there is room for, and says how much that was.
  private func send(_ bytes: ArraySlice<UInt8>, to socket: borrowing UnixSocket) -> Int {
    let some = Array(bytes.prefix(1 << 16))
    return (try? socket.sendPart(some.span)) ?? 0
  }

  /// What comes at `socket` until its other side ends it, or `isEnough` says so.
  private func read(
    _ socket: borrowing UnixSocket, until isEnough: ([UInt8]) -> Bool = { _ in false }
  ) throws -> [UInt8] {
    var bytes: [UInt8] = []
    let deadline = Deadline()
    var isOver = false
    while !isOver, !isEnough(bytes), !deadline.isOver {
      if socket.descriptor.isReadable(within: 1000) {
        let more = try socket.descriptor.read(atMost: 1 << 16)
        bytes += more
        isOver = more.isEmpty
      }
    }
    return bytes
  }

  @Test("who doesn't read holds nobody up, misses what isn't kept any more, and is told so")
  func slow() throws {
    let slow = try show(from: .run, mayType: false)
    let line = [UInt8](repeating: UInt8(ascii: "x"), count: 4096)
    for _ in 0..<(3 * ConsoleRecord.partSize / line.count) { hub.write(line.span) }
    hub.write(Array("the end".utf8).span)
    let shown = String(
      decoding: try read(slow) { $0.suffix(7).elementsEqual("the end".utf8) }, as: UTF8.self)
    #expect(shown.contains("bytes are lost") && shown.hasSuffix("the end"))
  }

  @Test("see the last of it before they are sent away")
  func end() throws {
    let viewer = try show(from: .missed, mayType: true)
    hub.write(Array("bye".utf8).span)
    hub.end()
    #expect(try read(viewer) == Array("bye".utf8))
  }

  @Test("type as much as the guest takes, and no more")
  func typing() throws {
    let typist = try show(from: .now, mayType: true)
    guard case .descriptor(let keys, _, _) = hub.input else { throw Errno.badAddress }
    let pipe = FileDescriptor(borrowing: keys)
    let text = pattern(0..<1 << 20)
    var (sent, taken): (Int, [UInt8]) = (0, [])
    let deadline = Deadline()
    // The guest reads only when nothing more can be typed.
    while taken.count < text.count, !deadline.isOver {
      let count = send(text[sent...], to: typist)
      sent += count
      if count == 0, pipe.isReadable(within: 1000) { taken += try pipe.read(atMost: 1 << 16) }
    }
    #expect(taken == text)
  }
}
