import Host
import Memory
import Synchronization

/// A stream socket with each frame behind its length, four bytes with the highest first: what QEMU's
/// `-netdev socket` and passt speak.
package final class StreamBackEnd: NetworkBackEnd {
  /// What it is, for messages.
  package let name: String
  /// A stream has one queue.
  package var queueCount: Int { 1 }
  /// Peers take whole frames alone.
  package var offloads: NetworkOffloads { [] }

  /// How long a wait for room lasts before it is asked whether to go on, in milliseconds.
  private static let patience: Int32 = 100

  private let socket: FileDescriptor
  private let input: Mutex<Input>
  private let output: Mutex<Output>

  /// Bytes that came, of which frames are cut.
  private struct Input {
    let bytes: MemoryView
    var start = 0
    var end = 0
  }

  private struct Output {
    let length: MemoryView
    /// What is left of a frame that didn't go whole.
    var rest: [UInt8] = []
  }

  /// Frames go through `socket`, a connected stream that never waits.
  package init(_ socket: consuming FileDescriptor, name: String) throws(Errno) {
    self.name = name
    self.socket = socket
    input = Mutex(Input(bytes: try MemoryView(scratch: 2 * NetworkFrame.bufferCount)))
    output = Mutex(Output(length: try MemoryView(scratch: 4)))
  }

  /// Nothing to allow.
  package func allow(_ offloads: NetworkOffloads) {}
  /// There is only one.
  package func setActiveQueues(_ count: Int) {}
  /// The socket.
  package func inputDescriptor(queue: Int) -> Int32? { socket.number }

  // MARK: To the peer

  /// Sends length and frame; a frame that has begun to go goes whole, sooner or later.
  package func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    output.withLock { output in
      guard flush(&output, mayWait) else { return false }
      output.length.store(UInt32(count).bigEndian, 0)
      while true {
        do throws(Errno) {
          let sent = try socket.send(output.length, frame)
          if sent < count + 4 {
            output.rest = Self.bytes(from: sent, output.length, frame)
            _ = flush(&output, mayWait)
          }
          return true
        } catch {
          guard waits(error, mayWait) else { return false }
        }
      }
    }
  }

  /// Sends what is left of the last frame; false if it doesn't all go.
  private func flush(_ output: inout Output, _ mayWait: () -> Bool) -> Bool {
    while !output.rest.isEmpty {
      do throws(Errno) {
        output.rest.removeFirst(try socket.send(output.rest.span))
      } catch {
        guard waits(error, mayWait) else { return false }
      }
    }
    return true
  }

  private func waits(_ error: Errno, _ mayWait: () -> Bool) -> Bool {
    guard error == .tryAgain || error == .interrupted, mayWait() else { return false }
    socket.waitUntilWritable(milliseconds: Self.patience)
    return true
  }

  private static func bytes(
    from start: Int, _ length: MemoryView, _ frame: [MemoryView]
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    for view in [length] + frame {
      var part = [UInt8](repeating: 0, count: view.count)
      var span = part.mutableSpan
      view.copy(to: &span, from: 0)
      bytes += part
    }
    bytes.removeFirst(start)
    return bytes
  }

  // MARK: From the peer

  /// Cuts the next frame from what came, and looks for more if it isn't whole.
  package func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    try input.withLock { (input) throws(NetworkError) in
      while true {
        if let frame = try takeFrame(&input, into: buffer) { return frame }
        guard try fill(&input) else { return .nothing }
      }
    }
  }

  private func takeFrame(
    _ input: inout Input, into buffer: MemoryView
  ) throws(NetworkError) -> NetworkInput? {
    guard input.end - input.start >= 4 else { return nil }
    let count = Int(
      UInt32(bigEndian: UInt32(littleEndian: input.bytes.load(input.start, as: UInt32.self))))
    guard count >= NetworkFrame.shortest, count <= NetworkFrame.longest else {
      throw NetworkError(.host, "\(name) sent a frame of \(count) bytes, which none can have")
    }
    guard input.end - input.start >= 4 + count else { return nil }
    buffer.zero(0, count: NetworkFrame.headerCount)
    buffer.copy(
      from: input.bytes.slice(input.start + 4, count: count), at: NetworkFrame.headerCount)
    input.start += 4 + count
    return .frame(NetworkFrame.headerCount + count)
  }

  /// Reads what there is; false if nothing came.
  private func fill(_ input: inout Input) throws(NetworkError) -> Bool {
    if input.start > 0 {
      let rest = input.bytes.slice(input.start, count: input.end - input.start)
      input.bytes.copy(from: rest, at: 0)
      (input.start, input.end) = (0, rest.count)
    }
    let room = input.bytes.slice(input.end, count: input.bytes.count - input.end)
    do throws(Errno) {
      let count = try socket.read(into: room)
      guard count > 0 else { throw Errno.brokenPipe }
      input.end += count
      return true
    } catch {
      if error == .tryAgain { return false }
      throw NetworkError(.host, "\(name) has ended: the guest's network cable is out")
    }
  }
}
