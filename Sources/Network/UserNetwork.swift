import Host
import Memory

/// A network that needs no rights: Debian's passt makes the guest's connections its own.
public final class UserNetwork: NetworkBackEnd {
  /// The MTU to advise, which is what passt tells by DHCP: streams cost least in the largest packets,
  /// as they end at passt and go on in others of its own.
  public static let mtu: UInt16 = 65520

  /// The program.
  public var name: String { "passt" }
  /// One stream.
  public var queueCount: Int { 1 }
  /// None.
  public var offloads: NetworkOffloads { [] }

  private let stream: StreamBackEnd
  private let program: ChildProgram

  /// Starts passt, which ends with this object or with the process.
  public init() throws(NetworkError) {
    do throws(Errno) {
      // passt ends a frame that went in part by a call that it wants to wait.
      let (ours, theirs) = try StreamSocket.makePair(secondWaits: true)
      let ourEnd = FileDescriptor(owning: ours)
      // Closed here once the program has it.
      let theirEnd = FileDescriptor(owning: theirs)
      program = try ChildProgram(
        "passt", ["--quiet", "--foreground", "--fd", "\(theirEnd.number)"],
        inheriting: theirEnd)
      stream = try StreamBackEnd(ourEnd, name: "passt")
    } catch {
      if error == .noSuchFile {
        throw NetworkError(
          .unusable,
          "no program passt, which --net user needs: install it with: sudo apt install passt")
      }
      throw NetworkError(.host, "passt can't be started: \(error)")
    }
  }

  /// Nothing to allow.
  public func allow(_ offloads: NetworkOffloads) {}
  /// There is only one.
  public func setActiveQueues(_ count: Int) {}
  /// The socket.
  public func inputDescriptor(queue: Int) -> Int32? { stream.inputDescriptor(queue: queue) }

  /// Sends a frame to passt.
  public func send(
    header: MemoryView, _ frame: [MemoryView], count: Int, queue: Int, mayWait: () -> Bool
  ) -> Bool {
    stream.send(header: header, frame, count: count, queue: queue, mayWait: mayWait)
  }

  /// Takes a frame from passt; when that has ended, its status tells why.
  public func receive(into buffer: MemoryView, queue: Int) throws(NetworkError) -> NetworkInput {
    do throws(NetworkError) { return try stream.receive(into: buffer, queue: queue) } catch {
      guard let status = program.endStatus() else { throw error }
      throw NetworkError(
        .host, "passt ended with status \(status): the guest's network cable is out")
    }
  }

  /// Ends passt.
  public func close() { program.stop() }
}
