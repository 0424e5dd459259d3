import CLinux
import Glibc
import Synchronization

/// The process that does errands for one that is confined: with the rights of whoever started that, and
/// never more than it was told of before.
///
/// It is a copy of this process from before anything was opened, and ends with it.
package final class Broker: Sendable {
  // Set once, before there are other threads.
  private nonisolated(unsafe) static var started: Broker?

  /// That of this process, if it has one.
  package static var current: Broker? { unsafe started }

  /// What it makes for this process, when it's told which.
  package let namespaces: Namespaces
  private let socket: Mutex<UnixSocket>
  private let count = Atomic<UInt32>(0)
  private let isSealed = Atomic<Bool>(false)

  /// Whether this process can't do errands itself.
  var isNeeded: Bool { isSealed.load(ordering: .acquiring) }

  private enum Order {
    /// An errand's kind follows.
    static let add: UInt8 = 0
    /// No more are added.
    static let seal: UInt8 = 1
    /// An errand's index and a number for it follow, 64 bits each.
    static let perform: UInt8 = 2
    /// What is to be done with a cgroup in the end follows, with a file for words.
    static let end: UInt8 = 3
  }

  private static let longestMessage = 16 << 10

  /// Starts that of this process, which has no other thread, and what makes its namespaces. What this
  /// process has open stays its own. Programs that it runs are confined as `helpers` say.
  package static func start(
    helpers: @Sendable () -> ChildProgram.Confinement
  ) throws(Errno) -> Broker {
    let namespaces = try Namespaces()
    var other: UnixSocket?
    let broker = Broker(try UnixSocket(pairedWith: &other, .messages), namespaces)
    guard let theirs = other.take() else { throw .invalidArgument }
    let child = clinux_fork()
    guard child >= 0 else { throw Errno.current }
    if child == 0 {
      namespaces.makeInCopy()
      serve(theirs, helpers)
    }
    unsafe started = broker
    return broker
  }

  /// Ends that of this process, which doesn't need it.
  package static func dismiss() { unsafe started = nil }

  private init(_ socket: consuming UnixSocket, _ namespaces: Namespaces) {
    self.socket = Mutex(socket)
    self.namespaces = namespaces
  }

  // MARK: Asking

  /// Has an errand known; nil if it can't be.
  func add(_ kind: Errand.Kind) -> UInt32? {
    guard !isNeeded else { return nil }
    let message = [Order.add] + kind.message
    // Nobody waits for an answer: what can't be known is refused when it is asked for.
    guard message.count <= Self.longestMessage,
      (try? socket.withLock({ (socket) throws(Errno) in try socket.send(message.span) })) != nil
    else { return nil }
    return count.add(1, ordering: .relaxed).oldValue
  }

  /// Has `end` done when this process has ended, whatever ends it; what it says goes to `error`.
  package func add(_ end: ControlGroupEnd, error: Int32?) throws(Errno) {
    let message = [Order.end] + end.message
    guard message.count <= Self.longestMessage else { throw .invalidArgument }
    try socket.withLock { (socket) throws(Errno) in
      try socket.send(message.span, descriptors: error.map { [$0] } ?? [])
    }
  }

  /// Adds no more errands: from now on this process is not to be trusted.
  package func seal() throws(Errno) {
    // What is asked for later comes later: nobody waits for an answer.
    try socket.withLock { (socket) throws(Errno) in try socket.send([Order.seal].span) }
    isSealed.store(true, ordering: .releasing)
  }

  func ask(
    _ index: UInt32, _ number: UInt64, _ file: SharedDescriptor?
  ) throws(Errno) -> SharedDescriptor? {
    let message = [Order.perform] + Words.bytes([UInt64(index), number])
    let answer = socket.withLock { socket -> Result<SharedDescriptor?, Errno> in
      do throws(Errno) {
        try socket.send(message.span, descriptors: file.map { [$0.file.number] } ?? [])
        return .success(try Self.answer(socket))
      } catch { return .failure(error) }
    }
    return try answer.get()
  }

  private static func answer(_ socket: borrowing UnixSocket) throws(Errno) -> SharedDescriptor? {
    var bytes = [UInt8](repeating: 0, count: 8)
    var files: [SharedDescriptor] = []
    while true {
      while !socket.descriptor.isReadable(within: -1) {}
      var span = bytes.mutableSpan
      guard let count = try socket.receive(into: &span, files: &files) else { continue }
      guard count == bytes.count else { throw .brokenPipe }
      let error = Int32(truncatingIfNeeded: Words.values(bytes[...])[0])
      if error != 0 { throw Errno(error) }
      return files.first
    }
  }

  // MARK: Serving

  /// The broker's process, to its end.
  private static func serve(
    _ socket: consuming UnixSocket, _ helpers: () -> ChildProgram.Confinement
  ) -> Never {
    closeOthers(but: socket.descriptor.number)
    // The name that ps shows; what it may do it does by its user's rights alone.
    _ = unsafe clinux_set_thread_name("kvmlite-broker")
    // What it starts shall have no more rights than that; whoever waits for it is told by its end.
    guard clinux_no_new_rights() == 0 else { _exit(1) }
    var errands: [Errand.Kind?] = []
    var isSealed = false
    var last: (end: ControlGroupEnd, error: SharedDescriptor?)?
    func leave(_ status: Int32) -> Never {
      last?.end.tell(last?.error, errands.compactMap { $0?.endPath })
      last?.error = nil
      last?.end.removeGroups()
      _exit(status)
    }
    var bytes = [UInt8](repeating: 0, count: longestMessage + 1)
    while true {
      while !socket.descriptor.isReadable(within: -1) {}
      var files: [SharedDescriptor] = []
      var span = bytes.mutableSpan
      guard let count = try? socket.receive(into: &span, files: &files) else { continue }
      guard count > 0 else { leave(0) }
      let message = bytes.prefix(count)
      var (code, result): (Int32, SharedDescriptor?) = (0, nil)
      switch message[0] {
      case Order.add:
        // Each has its index, whatever becomes of it.
        if !isSealed { errands.append(Errand.Kind(message: message.dropFirst())) }
        continue
      case Order.seal:
        isSealed = true
        continue
      case Order.end:
        if !isSealed, let end = ControlGroupEnd(message: message.dropFirst()) {
          last = (end, files.first)
        }
        continue
      case Order.perform where count == 17:
        let words = Words.values(message.dropFirst())
        do throws(Errno) {
          guard words[0] < errands.count, let errand = errands[Int(words[0])] else {
            throw .invalidArgument
          }
          let helper: ChildProgram.Confinement? = if case .run = errand { helpers() } else { nil }
          result = try errand.perform(words[1], files.first, helper)
        } catch { code = error.code }
      default: code = EINVAL
      }
      // Who waits for it is told by the end, then.
      guard answer(socket, code, result) else { leave(1) }
    }
  }

  private static func answer(
    _ socket: borrowing UnixSocket, _ error: Int32, _ file: SharedDescriptor?
  ) -> Bool {
    let bytes = Words.bytes([UInt64(error)])
    return (try? socket.send(bytes.span, descriptors: file.map { [$0.file.number] } ?? [])) != nil
  }

  /// Nobody shall wait for the end of a stream that this process has, and no key ends it before the one
  /// that it is for.
  static func closeOthers(but number: Int32) {
    Signal.blockAll()
    setpgid(0, 0)
    let nothing = unsafe open("/dev/null", O_RDWR)
    for standard in Int32(0)...2 { dup2(nothing, standard) }
    clinux_close_all(3, UInt32(number))
  }
}

/// Numbers in messages between processes of this program.
enum Words {
  static func bytes(_ words: [UInt64]) -> [UInt8] {
    words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
  }

  /// Those in `bytes`, whose count is a multiple of 8.
  static func values(_ bytes: ArraySlice<UInt8>) -> [UInt64] {
    stride(from: bytes.startIndex, to: bytes.endIndex, by: 8).map { start in
      bytes[start..<(start + 8)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}
