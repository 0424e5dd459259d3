import Host

/// Takes vhost-user messages from a socket, in whatever pieces they come, and sends them.
struct MessageChannel: ~Copyable, Sendable {
  /// The socket.
  let socket: UnixSocket
  private var header: [UInt8] = []
  private var message: VhostUserMessage?
  private var received = 0
  private var files: [SharedDescriptor] = []
  /// The most that a message has: one for each region of memory.
  private static let mostFiles = 8

  init(_ socket: consuming UnixSocket) { self.socket = socket }

  /// The next message if all of it has come, else nil. Never waits.
  mutating func next() throws(VhostUserError) -> VhostUserMessage? {
    if message == nil {
      while header.count < VhostUserMessage.headerSize {
        guard let bytes = try take(VhostUserMessage.headerSize - header.count) else { return nil }
        header += bytes
      }
      message = try VhostUserMessage(header: header.span)
    }
    guard var message else { return nil }
    while received < message.payload.count {
      guard let bytes = try take(message.payload.count - received) else {
        self.message = message
        return nil
      }
      message.payload.replaceSubrange(received..<received + bytes.count, with: bytes)
      received += bytes.count
    }
    message.files = files
    (header, self.message, received, files) = ([], nil, 0, [])
    return message
  }

  private mutating func take(_ count: Int) throws(VhostUserError) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    let length: Int?
    do throws(Errno) {
      length = try socket.receive(into: &span, files: &files)
    } catch { throw VhostUserError(error) }
    guard files.count <= Self.mostFiles else {
      throw .malformed("a message with \(files.count) open files")
    }
    guard let length else { return nil }
    guard length > 0 else { throw .closed }
    bytes.removeLast(count - length)
    return bytes
  }

  /// The next message; waits for it until `shouldStop`, which is asked again after each signal, and no
  /// longer than until `deadline` (of `Clock.monotonicNanoseconds`).
  mutating func wait(
    unless shouldStop: () -> Bool, until deadline: UInt64 = .max
  ) throws(VhostUserError) -> VhostUserMessage {
    while true {
      if let message = try next() { return message }
      if shouldStop() { throw .ended }
      let now = Clock.monotonicNanoseconds
      guard now < deadline else { throw .silent }
      let left = (deadline - now) / 1_000_000 + 1
      socket.descriptor.waitUntilReadable(milliseconds: Int32(clamping: left))
    }
  }

  /// Sends `message` with `descriptors` beside the files of its own.
  func send(_ message: VhostUserMessage, descriptors: [Int32] = []) throws(VhostUserError) {
    do throws(Errno) {
      try socket.send(message.bytes.span, descriptors: descriptors)
    } catch {
      if error == .tryAgain { throw .malformed("it reads no messages") }
      throw VhostUserError(error)
    }
  }
}
