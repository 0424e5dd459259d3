import CLinux
import Glibc

/// Something that a machine needs of the host's names after its guest has begun, when its own process can
/// reach none.
///
/// It is named before that, while the process is to be trusted; with a `Broker`, that process then does
/// it, and does nothing else. Without one, this process does, by a thread that isn't confined.
package final class Errand: Sendable {
  /// What is to be done.
  package enum Kind: Sendable {
    /// Removes a file's name, where the name is still this one's. Corresponds to `unlink(2)`.
    case remove(String, FileIdentity?)
    /// Gives a file another name. Corresponds to `rename(2)`.
    case move(String, to: String)
    /// Removes a directory and the files in it.
    case removeDirectory(String)
    /// Makes the file at a path whole and new, of what the file that is handed over holds.
    case write(String)
    /// The same, for how the process ended; if the kernel ends it for want of memory, who does errands
    /// says so there.
    case writeEnd(String)
    /// Keeps what a path names as an older one, and makes a new and empty file in its place, which comes
    /// back.
    case renew(String, older: String)
    /// Makes a file without a name in a directory, to be read and written, which comes back.
    case makeUnnamed(String)
    /// Makes a folder beside the one whose place it takes, file by file, and puts it there: the errand's
    /// number says what is next (`NewFolder.Step`), and a file that is made comes back.
    case renewFolder(NewFolder)
    /// Connects to the Unix socket at a path, a stream, which comes back and never waits.
    case connect(String)
    /// The same, with an underscore and the errand's number behind the path.
    case connectNumbered(String)
    /// Sends the signal that the errand's number is to the process of that number, which this one has
    /// started and not yet waited for. Corresponds to `kill(2)`.
    case signal(Int32)
    /// Runs the first program of some that is there on the file that is handed over; what it prints comes
    /// back. `%x` among the words is the errand's number.
    case run([String], [String])
  }

  private let kind: Kind
  private let index: UInt32?

  /// Names it, to be done as often as it is asked for.
  package init(_ kind: Kind) {
    self.kind = kind
    index = Broker.current?.add(kind)
  }

  /// Does it. `number` is for kinds that have one, `file` for those to which a file is handed over.
  @discardableResult
  package func perform(
    _ number: UInt64 = 0, with file: SharedDescriptor? = nil
  ) throws(Errno) -> SharedDescriptor? {
    guard let broker = Broker.current, broker.isNeeded else {
      let kind = kind
      return try ThreadFilters.freely { () throws(Errno) in try kind.perform(number, file) }
    }
    guard let index else { throw .notPermitted }
    return try broker.ask(index, number, file)
  }
}

extension Errand.Kind {
  /// Does it; a program that it runs is confined by `helper`.
  func perform(
    _ number: UInt64, _ file: SharedDescriptor?, _ helper: ChildProgram.Confinement? = nil
  ) throws(Errno) -> SharedDescriptor? {
    switch self {
    case .remove(let path, let identity):
      if let identity, identity != UnixListener.identity(of: path) { return nil }
      guard unsafe unlink(path) == 0 else { throw Errno.current }
    case .move(let old, let new):
      guard unsafe rename(old, new) == 0 else { throw Errno.current }
    case .removeDirectory(let path): try PrivateDirectory.remove(path)
    case .write(let path), .writeEnd(let path):
      guard let file else { throw .invalidArgument }
      let output = try OutputFile(path)
      try output.write(try Subprocess.contents(ofTemporaryFile: file))
      try output.commit()
    case .renew(let path, let older):
      try FileName.move(path, to: older, replaces: true)
      return SharedDescriptor(
        try FileDescriptor(opening: path, [.readWrite, .create, .truncate], permissions: 0o600))
    case .makeUnnamed(let directory):
      return SharedDescriptor(try FileDescriptor(unnamedIn: directory))
    case .renewFolder(let folder): return try folder.perform(number)
    case .connect(let path): return SharedDescriptor(try StreamSocket.connect(to: path))
    case .connectNumbered(let path):
      return SharedDescriptor(try StreamSocket.connect(to: "\(path)_\(number)"))
    case .signal(let process):
      guard [SIGTERM, SIGCONT, SIGKILL].contains(Int32(truncatingIfNeeded: number)) else {
        throw .invalidArgument
      }
      guard Glibc.kill(process, Int32(number)) == 0 else { throw Errno.current }
    case .run(let programs, let arguments):
      guard let file, let program = programs.first(where: FileDescriptor.exists) else {
        throw .noSuchFile
      }
      let words = arguments.map { $0 == "%x" ? "0x" + String(number, radix: 16) : $0 }
      guard let text = Subprocess.output(of: program, words, inheriting: file.file, helper)
      else {
        throw .inputOutput
      }
      return SharedDescriptor(try Subprocess.makeTemporaryFile(Array(text.utf8)))
    }
    return nil
  }

  /// Where it writes how the process ended; nil for other errands.
  var endPath: String? { if case .writeEnd(let path) = self { path } else { nil } }

  // MARK: Travelling

  /// As a message: the kind's number, and words that each end in a zero.
  var message: [UInt8] {
    let (number, words): (UInt8, [String]) =
      switch self {
      case .remove(let path, let file):
        (0, [path] + (file.map { ["\($0.device)", "\($0.number)"] } ?? []))
      case .move(let old, let new): (1, [old, new])
      case .removeDirectory(let path): (2, [path])
      case .write(let path): (3, [path])
      case .renew(let path, let older): (4, [path, older])
      case .connect(let path): (5, [path])
      case .connectNumbered(let path): (6, [path])
      case .signal(let process): (7, [String(process)])
      case .run(let programs, let arguments): (8, ["\(programs.count)"] + programs + arguments)
      case .makeUnnamed(let directory): (9, [directory])
      case .writeEnd(let path): (10, [path])
      case .renewFolder(let folder): (11, folder.words)
      }
    return [number] + words.flatMap { Array($0.utf8) + [0] }
  }

  init?(message: ArraySlice<UInt8>) {
    guard let number = message.first else { return nil }
    let words = message.dropFirst().split(separator: 0, omittingEmptySubsequences: false)
      .dropLast().map { String(decoding: $0, as: UTF8.self) }
    switch (number, words.count) {
    case (0, 1): self = .remove(words[0], nil)
    case (0, 3):
      guard let device = UInt64(words[1]), let file = UInt64(words[2]) else { return nil }
      self = .remove(words[0], FileIdentity(device: device, number: file))
    case (1, 2): self = .move(words[0], to: words[1])
    case (2, 1): self = .removeDirectory(words[0])
    case (3, 1): self = .write(words[0])
    case (4, 2): self = .renew(words[0], older: words[1])
    case (5, 1): self = .connect(words[0])
    case (6, 1): self = .connectNumbered(words[0])
    case (7, 1):
      guard let process = Int32(words[0]), process > 1 else { return nil }
      self = .signal(process)
    case (8, 1...):
      guard let count = Int(words[0]), (1..<words.count).contains(count) else { return nil }
      self = .run(Array(words[1...count]), Array(words[(count + 1)...]))
    case (9, 1): self = .makeUnnamed(words[0])
    case (10, 1): self = .writeEnd(words[0])
    case (11, 1...):
      guard let folder = NewFolder(words: words) else { return nil }
      self = .renewFolder(folder)
    default: return nil
    }
  }
}
