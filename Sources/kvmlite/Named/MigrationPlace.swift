import Host
import Machine

/// Where a machine goes to, or comes from: `unix:PATH`, `tcp:ADDRESS:PORT`, `exec:COMMAND`, or `-`.
enum MigrationPlace {
  case unix(String)
  case tcp(TCPSocket.Place)
  case exec(String)
  case standard

  init?(_ text: String) {
    func rest(_ prefix: String) -> String? {
      text.hasPrefix(prefix) && text.count > prefix.count
        ? String(text.dropFirst(prefix.count)) : nil
    }
    if let path = rest("unix:") {
      self = .unix(path)
    } else if let place = rest("tcp:").flatMap(TCPSocket.Place.init) {
      self = .tcp(place)
    } else if let command = rest("exec:") {
      self = .exec(command)
    } else if text == "-" {
      self = .standard
    } else {
      return nil
    }
  }

  /// A connection to who receives, and the program that makes it, if one does.
  func connect() throws(Errno) -> (socket: SharedDescriptor, program: ChildProgram?) {
    switch self {
    case .unix(let path): return (SharedDescriptor(try StreamSocket.connect(to: path)), nil)
    case .tcp(let place): return (SharedDescriptor(try TCPSocket.connect(to: place)), nil)
    case .exec(let command):
      let (ours, theirs) = try StreamSocket.makePair(secondWaits: true)
      let socket = SharedDescriptor(FileDescriptor(owning: ours))
      let other = SharedDescriptor(FileDescriptor(owning: theirs))
      let words = SharedDescriptor(try FileDescriptor(borrowing: 2).duplicate())
      let program = try ChildProgram("/bin/sh", ["-c", command], files: [other, other, words])
      return (socket, program)
    case .standard: throw .invalidArgument
    }
  }

  /// Waits for who sends, and takes what he sends and what he is told by; `told` when he can come.
  func accept(_ told: () -> Void) throws(Errno) -> (
    input: SharedDescriptor, output: SharedDescriptor
  ) {
    switch self {
    case .unix(let path):
      let listener = try UnixListener(at: path)
      told()
      let socket = SharedDescriptor(try listener.accept().descriptor.duplicate())
      return (socket, socket)
    case .tcp(let place):
      let listener = try TCPSocket.listen(at: place)
      told()
      while true {
        guard listener.isReadable(within: -1) else { continue }
        guard let file = try listener.accept() else { continue }
        let socket = SharedDescriptor(file)
        return (socket, socket)
      }
    case .standard:
      // Nothing else is to be read from there, nor printed to there.
      let ends = (
        SharedDescriptor(try FileDescriptor(borrowing: 0).duplicate(from: 3)),
        SharedDescriptor(try FileDescriptor(borrowing: 1).duplicate(from: 3))
      )
      try FileDescriptor.closeStandardStreams()
      return ends
    case .exec: throw .invalidArgument
    }
  }
}
