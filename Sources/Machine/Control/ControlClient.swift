import Host

/// A connection to a machine's control socket, from another process.
package struct ControlClient: ~Copyable {
  private let socket: UnixSocket
  /// The machine's process.
  package let process: Int32
  /// Readable when that has ended; nil on a Linux before 5.3.
  package let processEnd: SharedDescriptor?

  /// Connects to who listens at `path`: `ENOENT` and `ECONNREFUSED` where nobody does.
  package init(at path: String) throws(Errno) {
    let socket = try UnixSocket(connectingTo: path, .messages)
    guard let process = socket.peerProcess else { throw .connectionReset }
    self.socket = socket
    self.process = process
    processEnd = ChildProgram.makeEndDescriptor(of: process)
  }

  /// Why there is no answer, or none that was hoped for.
  package enum Trouble: Error {
    /// The machine's process went, or has more clients than it serves.
    case gone
    /// Nothing came in time.
    case late
    /// It refuses; why.
    case refused(String)
  }

  /// Sends a command, with what belongs to it.
  package func send(
    _ kind: ControlMessage.Kind, _ members: [JSON.Member] = [], files: [Int32] = []
  ) throws(Trouble) {
    let command = JSON.Member("command", JSON(.string(kind.rawValue)))
    let text = JSON(.object([command] + members)).text
    do throws(Errno) { try socket.send(Array(text.utf8).span, descriptors: files) } catch {
      throw .gone
    }
  }

  /// Waits for the next answer, until `Clock.monotonicNanoseconds` comes to `deadline`.
  package func answer(until deadline: UInt64 = .max) throws(Trouble) -> JSON {
    var buffer = [UInt8](repeating: 0, count: Self.longestAnswer)
    while true {
      guard socket.descriptor.isReadable(until: deadline) else { throw .late }
      var span = buffer.mutableSpan
      var files: [SharedDescriptor] = []
      let count: Int?
      do throws(Errno) { count = try socket.receive(into: &span, files: &files) } catch {
        throw .gone
      }
      guard let count else { continue }
      guard count > 0, let json = try? JSON(parsing: Array(buffer[..<count])) else { throw .gone }
      if json["ok"]?.value == .bool(true) { return json }
      guard case .string(let reason)? = json["error"]?.value else { throw .gone }
      throw .refused(reason)
    }
  }

  /// Sends a command and waits for its answer.
  @discardableResult
  package func ask(
    _ kind: ControlMessage.Kind, _ members: [JSON.Member] = [], files: [Int32] = [],
    until deadline: UInt64 = .max
  ) throws(Trouble) -> JSON {
    try send(kind, members, files: files)
    return try answer(until: deadline)
  }

  /// Waits for the end of the machine's process; false if it is still there at `deadline`.
  package func waitForEnd(until deadline: UInt64 = .max) -> Bool {
    if let processEnd { return processEnd.file.isReadable(until: deadline) }
    // Its end of the connection goes a moment before it does.
    while true {
      do throws(Trouble) { _ = try answer(until: deadline) } catch .late {
        return false
      } catch .gone {
        return true
      } catch {}
    }
  }

  /// Kills the machine's process, and no other that may have its number by now. Corresponds to
  /// `pidfd_send_signal(2)`.
  package func killProcess() {
    if let processEnd { ChildProgram.killProcess(processEnd) }
  }

  /// Bytes; a machine with hundreds of devices needs less.
  private static let longestAnswer = 1 << 18
}
