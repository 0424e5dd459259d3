import Host
import Memory
import Synchronization

/// A network that needs no rights: Debian's passt makes the guest's connections its own.
package final class UserNetwork: NetworkBackEnd {
  /// The MTU to advise, which is what passt tells by DHCP: streams cost least in the largest packets,
  /// as they end at passt and go on in others of its own.
  package static let mtu: UInt16 = 65520

  /// The program.
  package var name: String { "passt" }
  /// One stream.
  package var queueCount: Int { 1 }
  /// None.
  package var offloads: NetworkOffloads { [] }

  private let stream: StreamBackEnd
  private let program: ChildProgram
  /// Its standard error.
  private let words: FileDescriptor
  /// Becomes readable when it has ended; nil where Linux doesn't tell.
  private let end: SharedDescriptor?
  private let status = Mutex<Int32?>(nil)
  /// What it has said since the last line's end.
  private let line = Mutex<[UInt8]>([])
  /// No more of a line is told.
  private static let longestLine = 1000

  /// Starts passt, which ends with this object or with the process.
  package init() throws(NetworkError) {
    do throws(Errno) {
      // passt ends a frame that went in part by a call that it wants to wait.
      let (ours, theirs) = try StreamSocket.makePair(secondWaits: true)
      let ourEnd = FileDescriptor(owning: ours)
      // Closed here once the program has it.
      let theirEnd = FileDescriptor(owning: theirs)
      let pipe = try Pipe()
      pipe.reading.neverWait()
      program = try ChildProgram(
        "passt", ["--quiet", "--foreground", "--fd", "\(ChildProgram.inheritedNumber)"],
        inheriting: theirEnd, standardError: pipe.writing)
      words = pipe.closeWriting()
      end = program.makeEndDescriptor()
      stream = try StreamBackEnd(ourEnd, name: "passt")
    } catch {
      if error == .noSuchFile {
        throw NetworkError(
          .unusable, "no program passt, which makes it: install it with: sudo apt install passt")
      }
      throw NetworkError(.host, "passt can't be started: \(error)")
    }
  }

  /// Nothing to allow.
  package func allow(_ offloads: NetworkOffloads) {}
  /// There is only one.
  package func setActiveQueues(_ count: Int) {}
  /// The socket.
  package func inputDescriptor(queue: Int) -> Int32? { stream.inputDescriptor(queue: queue) }

  /// Sends a frame to passt.
  package func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    stream.send(header: header, frame, count: count, queue: queue, mayWait: mayWait)
  }

  /// Takes a frame from passt; when that has ended, its status tells why.
  package func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    do throws(NetworkError) { return try stream.receive(into: buffer, queue: queue) } catch {
      throw endError() ?? error
    }
  }

  /// How it ended, if it has.
  private func endError() -> NetworkError? {
    let status = status.withLock { status in
      status = status ?? program.endStatus()
      return status
    }
    return status.map {
      NetworkError(.host, "passt ended with status \($0): the guest's network cable is out")
    }
  }

  /// Ends passt.
  package func close() { program.stop() }
}

extension UserNetwork: NetworkProgram {
  package func follow(
    on worker: Worker, say: @escaping @Sendable (String) -> Void,
    ended: @escaping @Sendable (NetworkError) -> Void
  ) throws(Errno) {
    try worker.watch(words) { [weak self] in self?.hear(say) }
    guard let end else { return }
    try worker.watch(end.file) { [weak self] in
      if let error = self?.endError() { ended(error) }
    }
  }

  /// Reads what it has said, line by line.
  private func hear(_ say: (String) -> Void) {
    while let bytes = try? words.read(atMost: 4096), !bytes.isEmpty {
      for byte in bytes {
        let whole = line.withLock { line -> [UInt8]? in
          if byte == 0x0A {
            defer { line = [] }
            return line
          }
          if line.count < Self.longestLine { line.append(byte) }
          return nil
        }
        if let whole { say("passt: " + String(decoding: whole, as: UTF8.self)) }
      }
    }
  }
}
