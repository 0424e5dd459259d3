import Devices
import Host
import Storage

/// Serves a disk to front ends in other processes, one after the other, until a signal comes.
public struct BackEndServer: ~Copyable {
  private enum Tag {
    static let listener: UInt64 = 0
    static let signal: UInt64 = 1
    static let frontEnd: UInt64 = 2
  }

  private let listener: UnixListener
  private let store: any BlockStore
  private let name: String
  private let device: VirtioBlock
  private let report: @Sendable (String) -> Void

  /// Listens at `path` for who wants `store`, which is called `name`. `report` gets a sentence when all
  /// is ready, when a front end comes or goes, and when something is wrong, from any thread.
  public init(
    _ store: any BlockStore, name: String, serial: String, queueCount: Int, at path: String,
    report: @escaping @Sendable (String) -> Void
  ) throws(Errno) {
    listener = try UnixListener(at: path)
    self.store = store
    self.name = name
    self.report = report
    device = VirtioBlock(store, serial: serial, queueCount: queueCount)
  }

  /// Serves until one of `signals`, which are blocked in the calling thread, and returns that one; or
  /// with `once` until the first front end has gone, and returns nil. What was written is on stable
  /// storage then.
  public borrowing func run(until signals: [Signal], once: Bool = false) throws(Errno) -> Signal? {
    let signalSource = try Signal.makeDescriptor(for: signals)
    let poller = try Poller()
    // A signal finds its way from here on.
    report("serves \(name)")
    _ = try poller.add(signalSource, tag: Tag.signal)
    while true {
      _ = try poller.add(listener.descriptor, tag: Tag.listener)
      guard let tag = poller.next(milliseconds: nil) else {
        poller.remove(listener.descriptor)
        continue
      }
      poller.remove(listener.descriptor)
      if tag == Tag.signal, let signal = Signal.next(from: signalSource) { return signal }
      guard tag == Tag.listener else { continue }
      var session = BackEndSession(device, try listener.accept(), report: report)
      report("a front end has come")
      defer { session.end() }
      let signal = try serve(&session, poller, signalSource)
      session.end()
      tell(session.statistics)
      do throws(StorageError) { try store.flush() } catch { report("the disk: \(error)") }
      if let signal { return signal }
      if once { return nil }
    }
  }

  private borrowing func tell(_ rings: [RequestStatistics]) {
    for (index, ring) in rings.enumerated() {
      guard let requests = ring.requests, requests > 0 else { continue }
      let bytes = (ring.bytesRead ?? 0) &+ (ring.bytesWritten ?? 0)
      report(
        "ring \(index): \(ring.doorbells ?? 0) kicks, \(requests) requests, \(bytes) bytes, "
          + "\(ring.interrupts ?? 0) calls")
    }
  }

  /// Serves one front end to its end, or until a signal.
  private borrowing func serve(
    _ session: inout BackEndSession, _ poller: borrowing Poller,
    _ signalSource: borrowing FileDescriptor
  ) throws(Errno) -> Signal? {
    try session.withSocket { (socket) throws(Errno) in
      _ = try poller.add(socket, tag: Tag.frontEnd)
    }
    while true {
      switch poller.next(milliseconds: nil) {
      case Tag.signal: if let signal = Signal.next(from: signalSource) { return signal }
      case Tag.frontEnd:
        do throws(VhostUserError) { try session.serve() } catch {
          report(
            error == .closed ? "the front end has gone" : "the front end was sent away: \(error)")
          return nil
        }
      default: break
      }
    }
  }
}
