import Host
import Memory

/// A connection between a port of the guest and a Unix socket of the host, with the credit that both
/// sides give each other (virtio 1.2, 5.10.6.3). Belongs to `VsockConnections`.
final class VsockConnection {
  /// The two ports, by which packets name it.
  struct Ports: Hashable {
    let guest: UInt32
    let host: UInt32
  }

  /// How far it is.
  enum Phase: Equatable {
    /// A program has connected and not yet said to which port: what it said so far.
    case greeting([UInt8])
    /// The guest has been asked.
    case requested
    /// Both sides have it.
    case open
    /// The guest has done with it; the host's program gets what is left.
    case lingering
  }

  /// What there is to tell the guest, besides data.
  struct Notices: OptionSet {
    let rawValue: UInt8
    static let request = Notices(rawValue: 1)
    static let response = Notices(rawValue: 2)
    static let shutdown = Notices(rawValue: 4)
    static let creditUpdate = Notices(rawValue: 8)
    static let creditRequest = Notices(rawValue: 16)
  }

  /// So much of a guest's data waits here for a slow program, and no more.
  static let bufferSize: UInt32 = 128 << 10
  /// `CONNECT 4294967295` and a line feed are shorter.
  private static let longestGreeting = 32

  let id: UInt64
  let socket: FileDescriptor
  var phase: Phase
  var ports: Ports
  var notices: Notices = []
  /// Whether it is in the row of those that have something for the guest.
  var isQueued = false
  /// Whether the program's bytes may be there. False once there are none, until an event.
  var isReadable = true
  /// Why its socket has failed, so that bytes may be missing: the guest is to hear of a reset, not of an end.
  var failure: Errno?
  /// What the program won't do any more, and how much of that the guest knows.
  private(set) var hostShutdown: VsockPacket.Shutdown = []
  /// What the guest won't do any more.
  private(set) var guestShutdown: VsockPacket.Shutdown = []

  private var hasEndedSending = false

  // Credit; all of these count on beyond 2^32.
  private var peerBufferSize: UInt32 = 0
  private var peerForwarded: UInt32 = 0
  private var sent: UInt32 = 0
  private var received: UInt32 = 0
  private var forwarded: UInt32 = 0
  private var toldForwarded: UInt32 = 0
  /// Whether the guest has no room for what may be there to read.
  private(set) var isStarved = false

  /// What the program has not taken yet, from `pendingStart` on.
  private var pending: [UInt8] = []
  private var pendingStart = 0
  /// How many of these bytes are not the guest's.
  private var ownPending = 0

  init(id: UInt64, socket: consuming FileDescriptor, phase: Phase, ports: Ports) {
    self.id = id
    self.socket = socket
    self.phase = phase
    self.ports = ports
  }

  // MARK: Credit

  /// How many bytes the guest has room for.
  var peerRoom: Int {
    // A guest that claims to have passed on more than it got has no room by this either.
    let inFlight = sent &- peerForwarded
    return inFlight >= peerBufferSize ? 0 : Int(peerBufferSize - inFlight)
  }

  func takeCredit(from packet: VsockPacket) {
    (peerBufferSize, peerForwarded) = (packet.bufferSize, packet.forwarded)
    if peerRoom > 0 { isStarved = false }
  }

  /// Whether the guest may still send `count` bytes.
  func hasRoom(for count: UInt32) -> Bool {
    count <= Self.bufferSize && received &- forwarded <= Self.bufferSize - count
  }

  /// Puts what the guest should know of us into `packet`.
  func stamp(_ packet: inout VsockPacket) {
    (packet.sourcePort, packet.destinationPort) = (ports.host, ports.guest)
    packet.bufferSize = Self.bufferSize
    packet.forwarded = forwarded
    toldForwarded = forwarded
    notices.remove(.creditUpdate)
  }

  func countSent(_ count: Int) { sent &+= UInt32(truncatingIfNeeded: count) }

  /// Reads no more until the guest says that it has room, for which it will be asked.
  func starve() {
    isStarved = true
    notices.insert(.creditRequest)
  }

  // MARK: To the program

  /// Takes the guest's data, for which there is room.
  func take(_ data: [MemoryView], count: Int) {
    received &+= UInt32(truncatingIfNeeded: count)
    // Nobody reads it, but the guest shall not wait.
    guard !hostShutdown.contains(.receive) else { return countForwarded(count) }
    for view in data {
      var bytes = [UInt8](repeating: 0, count: view.count)
      var span = bytes.mutableSpan
      view.copy(to: &span, from: 0)
      pending += bytes
    }
    flush()
  }

  /// Tells the program that its connection stands, as the convention has it.
  func confirm() {
    let line = Array("OK \(ports.host)\n".utf8)
    pending += line
    ownPending = line.count
    flush()
  }

  /// Whether the program has all of the guest's data.
  var isFlushed: Bool { pendingStart == pending.count }

  /// Gives the program what it takes.
  func flush() {
    while !isFlushed {
      do throws(Errno) {
        let rest = pendingStart..<pending.count
        let count = try socket.send(pending.span.extracting(rest))
        pendingStart += count
        let own = min(count, ownPending)
        ownPending -= own
        countForwarded(count - own)
      } catch {
        if error == .interrupted { continue }
        if error == .brokenPipe || error == .connectionReset {
          programIsGone()
        } else if error != .tryAgain {
          failure = error
        }
        break
      }
    }
    if isFlushed {
      pending.removeAll(keepingCapacity: true)
      pendingStart = 0
      if guestShutdown.contains(.send) && !hasEndedSending {
        hasEndedSending = true
        socket.shutDown(.sending)
      }
    } else if pendingStart >= Int(Self.bufferSize) {
      pending.removeFirst(pendingStart)
      pendingStart = 0
    }
  }

  private func countForwarded(_ count: Int) {
    forwarded &+= UInt32(truncatingIfNeeded: count)
    if forwarded &- toldForwarded >= Self.bufferSize / 4 { notices.insert(.creditUpdate) }
  }

  private func programIsGone() {
    countForwarded(pending.count - pendingStart - ownPending)
    (pending, pendingStart, ownPending) = ([], 0, 0)
    announce(.receive)
  }

  // MARK: Ends

  /// Notes that the program won't do something any more; the guest will hear of it.
  func announce(_ what: VsockPacket.Shutdown) {
    guard !hostShutdown.isSuperset(of: what) else { return }
    hostShutdown.formUnion(what)
    if phase == .open { notices.insert(.shutdown) }
  }

  /// Looks whether the program is gone altogether, when it has said all that it had to say.
  func lookForHangUp() {
    if hostShutdown.contains(.send) && socket.isHungUp { announce(.receive) }
  }

  /// Notes that the guest won't do something any more.
  func shutDown(_ what: VsockPacket.Shutdown) {
    let before = guestShutdown
    guestShutdown.formUnion(what.intersection(.both))
    // Each is done once: it is an event of the socket itself.
    if guestShutdown.contains(.receive) && !before.contains(.receive) {
      socket.shutDown(.receiving)
    }
    flush()
  }

  // MARK: From the program

  /// Whether to read from the program's socket.
  var wantsToRead: Bool {
    phase == .open && isReadable && !isStarved && !hostShutdown.contains(.send)
      && !guestShutdown.contains(.receive)
  }

  /// What became of reading a greeting.
  enum Greeting: Equatable {
    case unfinished
    case port(UInt32)
    case wrong
  }

  /// Reads `CONNECT PORT` and not a byte more: what follows is the guest's.
  func readGreeting() -> Greeting {
    guard case .greeting(var line) = phase else { return .wrong }
    while line.count < Self.longestGreeting {
      do throws(Errno) {
        guard let byte = try socket.read(atMost: 1).first else { return .wrong }
        guard byte != 0x0A else { return Self.port(String(decoding: line, as: UTF8.self)) }
        line.append(byte)
      } catch {
        if error == .interrupted { continue }
        phase = .greeting(line)
        return error == .tryAgain ? .unfinished : .wrong
      }
    }
    return .wrong
  }

  private static func port(_ line: String) -> Greeting {
    let words = line.split(separator: " ", omittingEmptySubsequences: false)
    guard words.count == 2, words[0] == "CONNECT", let port = UInt32(words[1]) else {
      return .wrong
    }
    return .port(port)
  }
}
