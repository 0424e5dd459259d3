import Host
import Memory

/// The bytes between the kvmlite that a machine leaves and the one that it comes to: frames of a kind (1
/// byte), a length (4, little-endian) and so many bytes. Both sides read them as somebody hostile's.
///
/// The source sends `hello`; the target `accept`, or `refuse` with why; the source `pages` and `zeros` as
/// long as its guest runs, and at last `state`; the target `ready`, when all is made and open, or `refuse`;
/// the source `go`, after which its guest never runs again unless it hears `refuse`; the target `running`.
/// Until `go` the machine is the source's, whatever happens; so at no time it runs at both.
package final class MigrationStream: Sendable {
  enum Kind: UInt8 {
    case hello = 1
    case accept, refuse, pages, zeros, state, ready, go, running
  }

  /// One that has come.
  struct Frame {
    let kind: Kind
    let bytes: [UInt8]
  }

  /// Why it broke off.
  package enum Trouble: Error, Sendable {
    /// The other side has gone.
    case gone
    /// Nothing goes on for too long.
    case stalled
    /// Somebody has given up here.
    case cancelled
    /// What came makes no sense: what.
    case nonsense(String)
    /// The other side refuses; in its words.
    case refused(String)
  }

  /// `kvmlite` and the form's number.
  static let mark = Array("kvmlite-move1\n".utf8)
  /// Bytes of pages in a frame.
  static let mostPages = 1 << 20
  /// Bytes of any other: a state has less, and so have ROMs.
  private static let mostBytes = 96 << 20
  /// How long the other side may do nothing, in nanoseconds.
  private static let patience: UInt64 = 30_000_000_000

  private let input: SharedDescriptor
  private let output: SharedDescriptor
  private let isCancelled: @Sendable () -> Bool

  /// Over these, which may be one socket.
  package init(
    _ input: SharedDescriptor, _ output: SharedDescriptor,
    isCancelled: @escaping @Sendable () -> Bool = { false }
  ) {
    (self.input, self.output, self.isCancelled) = (input, output, isCancelled)
    input.file.neverWait()
    output.file.neverWait()
  }

  // MARK: Sending

  func sendMark() throws(Trouble) { try sendAll(Self.mark.span) }

  func send(_ kind: Kind, _ bytes: [UInt8] = []) throws(Trouble) {
    try sendAll((Self.head(kind, bytes.count) + bytes).span)
  }

  /// Sends `view`, whole pages, as what is at `address`.
  func send(pages view: MemoryView, at address: GuestAddress) throws(Trouble) {
    var head = Self.head(.pages, 8 + view.count)
    head.append(number: address.value)
    try sendAll(head.span)
    var sent = 0
    while sent < view.count {
      let rest = view.slice(sent, count: view.count - sent)
      sent += try whenever(isWritable: true) { () throws(Errno) in
        try output.file.write(rest, [])
      }
    }
  }

  private static func head(_ kind: Kind, _ count: Int) -> [UInt8] {
    var head = [kind.rawValue]
    head.append(number: UInt32(count))
    return head
  }

  private func sendAll(_ bytes: Span<UInt8>) throws(Trouble) {
    var sent = 0
    while sent < bytes.count {
      let rest = bytes.extracting(sent..<bytes.count)
      sent += try whenever(isWritable: true) { () throws(Errno) in try output.file.write(rest) }
    }
  }

  // MARK: Receiving

  /// The next frame; of `pages` only the address, as `receive(into:)` takes the rest.
  func next() throws(Trouble) -> Frame {
    let head = try take(5)
    guard let kind = Kind(rawValue: head[0]) else { throw .nonsense("kind \(head[0])") }
    let count: UInt32 = head[1...].number(at: 0)
    let most = kind == .pages ? 8 + Self.mostPages : Self.mostBytes
    guard count <= most else { throw .nonsense("\(count) bytes") }
    guard kind == .pages else { return Frame(kind: kind, bytes: try take(Int(count))) }
    guard count > 8 else { throw .nonsense("no pages") }
    // The length travels behind the address.
    return Frame(kind: kind, bytes: try take(8) + head[1...])
  }

  /// The next frame, which is of this kind.
  func next(_ kind: Kind) throws(Trouble) -> [UInt8] {
    let frame = try next()
    if frame.kind == .refuse {
      throw .refused(String(decoding: frame.bytes.prefix(4096), as: UTF8.self))
    }
    guard frame.kind == kind else { throw .nonsense("\(frame.kind) instead of \(kind)") }
    return frame.bytes
  }

  /// Fills `view`.
  func receive(into view: MemoryView) throws(Trouble) {
    var done = 0
    while done < view.count {
      let rest = view.slice(done, count: view.count - done)
      let count = try whenever(isWritable: false) { () throws(Errno) in
        try input.file.read(into: rest)
      }
      guard count > 0 else { throw .gone }
      done += count
    }
  }

  func take(_ count: Int) throws(Trouble) -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let limit = min(count - bytes.count, 1 << 16)
      let more = try whenever(isWritable: false) { () throws(Errno) in
        try input.file.read(atMost: limit)
      }
      guard !more.isEmpty else { throw .gone }
      bytes += more
    }
    return bytes
  }

  /// Does `body` as soon as the other side lets it.
  private func whenever<Value>(
    isWritable: Bool, _ body: () throws(Errno) -> Value
  ) throws(Trouble) -> Value {
    let deadline = Clock.monotonicNanoseconds &+ Self.patience
    while true {
      guard !isCancelled() else { throw .cancelled }
      do throws(Errno) { return try body() } catch {
        guard error == .tryAgain || error == .interrupted else { throw .gone }
      }
      guard Clock.monotonicNanoseconds < deadline else { throw .stalled }
      if isWritable {
        output.file.waitUntilWritable(milliseconds: 100)
      } else {
        _ = input.file.isReadable(within: 100)
      }
    }
  }
}

extension MigrationStream.Trouble: CustomStringConvertible {
  /// In words.
  package var description: String {
    switch self {
    case .gone: "the other side has ended"
    case .stalled: "the other side does nothing"
    case .cancelled: "given up"
    case .nonsense(let what): "the other side sends no sense: \(what)"
    case .refused(let why): "the other side refuses: \(why)"
    }
  }
}
