import Devices
import Host
import Storage

/// Serves a disk to front ends in other processes, one after the other, until a signal comes.
package struct BackEndServer: ~Copyable {
  private enum Tag {
    static let listener: UInt64 = 0
    static let signal: UInt64 = 1
    static let frontEnd: UInt64 = 2
    static let reports: UInt64 = 3
  }

  private let listener: UnixListener
  private let store: any BlockStore
  private let name: String
  private let device: VirtioBlock
  private let reports: DeviceReports
  private let write: @Sendable (String) -> Void

  /// What is told of, each once; the others are counted.
  private enum Kind {
    static let ready = DeviceReports.Kind("ready")
    static let came = DeviceReports.Kind("came")
    static let went = DeviceReports.Kind("went")
    static let sentAway = DeviceReports.Kind("sent away")
    static let refused = DeviceReports.Kind("refused")
    static let ring = DeviceReports.Kind("ring")
    static let disk = DeviceReports.Kind("disk")
  }

  /// Listens at `path` for who wants `store`, which is called `name`. `report` gets a sentence when all
  /// is ready, and the first time that a front end comes, that one goes, and that something is wrong; in
  /// the end, how often else. It is called by the thread that runs the server.
  package init(
    _ store: any BlockStore, name: String, serial: String, queueCount: Int, at path: String,
    report: @escaping @Sendable (String) -> Void
  ) throws(Errno) {
    let reports = try DeviceReports()
    listener = try UnixListener(at: path)
    self.reports = reports
    self.store = store
    self.name = name
    write = report
    device = VirtioBlock(store, serial: serial, queueCount: queueCount)
  }

  /// Serves until one of `signals`, which are blocked in the calling thread, and returns that one; or
  /// with `once` until the first front end has gone, and returns nil. What was written is on stable
  /// storage then.
  package borrowing func run(until signals: [Signal], once: Bool = false) throws(Errno) -> Signal? {
    let signalSource = try Signal.makeDescriptor(for: signals)
    let poller = try Poller()
    _ = try poller.add(reports.event.descriptor, tag: Tag.reports)
    var done: [RequestStatistics] = []
    defer {
      tell(done)
      for text in reports.drain() + reports.summary() { write(text) }
    }
    // A signal finds its way from here on.
    report(Kind.ready, "serves \(name)")
    _ = try poller.add(signalSource, tag: Tag.signal)
    _ = try poller.add(listener.descriptor, tag: Tag.listener)
    while true {
      switch poller.next(milliseconds: nil) {
      case Tag.reports: for text in reports.drain() { write(text) }
      case Tag.signal: if let signal = Signal.next(from: signalSource) { return signal }
      case Tag.listener:
        report(Kind.came, "a front end has come")
        let reports = reports
        var session = BackEndSession(device, try listener.accept()) {
          reports.report(Kind.ring, "", $0)
        }
        defer { session.end() }
        let signal = try serve(&session, poller, signalSource)
        session.end()
        let rings = session.statistics
        while done.count < rings.count { done.append(RequestStatistics()) }
        for index in rings.indices { done[index].add(rings[index]) }
        do throws(StorageError) { try store.flush() } catch {
          report(Kind.disk, "the disk: \(error)")
        }
        if let signal { return signal }
        if once { return nil }
      default: break
      }
    }
  }

  /// Does what the front end has said; if it is at its end, how that came.
  private static func end(
    _ session: inout BackEndSession
  ) -> (kind: DeviceReports.Kind, text: String)? {
    do throws(VhostUserError) { try session.serve() } catch {
      return error == .closed
        ? (Kind.went, "the front end has gone")
        : (Kind.sentAway, "the front end was sent away: \(error)")
    }
    return nil
  }

  private borrowing func report(_ kind: DeviceReports.Kind, _ text: String) {
    reports.report(kind, "", text)
  }

  /// Says what the rings did for all front ends.
  private borrowing func tell(_ rings: [RequestStatistics]) {
    for (index, ring) in rings.enumerated() {
      guard let requests = ring.requests, requests > 0 else { continue }
      let bytes = (ring.bytesRead ?? 0) &+ (ring.bytesWritten ?? 0)
      write(
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
      case Tag.reports: for text in reports.drain() { write(text) }
      case Tag.signal: if let signal = Signal.next(from: signalSource) { return signal }
      case Tag.listener:
        if let end = Self.end(&session) {
          report(end.kind, end.text)
          return nil
        }
        // It must not wait for the end of the present one without a word.
        _ = try listener.accept()
        report(Kind.refused, "another front end was sent away: it serves one at a time")
      case Tag.frontEnd:
        if let end = Self.end(&session) {
          report(end.kind, end.text)
          return nil
        }
      default: break
      }
    }
  }
}
