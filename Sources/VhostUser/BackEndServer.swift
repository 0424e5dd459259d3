import Devices
import Host
import Storage

/// Serves a disk to front ends in other processes, one after the other or some at once, until a signal
/// comes.
package struct BackEndServer: ~Copyable {
  private enum Tag {
    static let listener: UInt64 = 0
    static let signal: UInt64 = 1
    static let reports: UInt64 = 2
    /// And more: a front end each, by its number.
    static let frontEnds: UInt64 = 3
  }

  /// What several front ends at once are served from.
  package struct Sharing: Sendable {
    /// How many there are at most.
    package let most: Int
    /// Makes the disk of the next one: it is nobody else's to write to.
    package let makeDisk: @Sendable () -> (any BlockStore)?

    /// Takes both as they are.
    package init(most: Int, makeDisk: @escaping @Sendable () -> (any BlockStore)?) {
      (self.most, self.makeDisk) = (most, makeDisk)
    }
  }

  /// A front end that is there.
  private final class FrontEnd {
    let number: Int
    var session: BackEndSession

    init(_ number: Int, _ session: consuming BackEndSession) {
      self.number = number
      self.session = session
    }
  }

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

  private let listener: UnixListener
  private let store: any BlockStore
  private let name: String
  private let serial: String
  private let queueCount: Int
  private let sharing: Sharing?
  private let turns: BackEndTurns
  private let reports: DeviceReports
  private let write: @Sendable (String) -> Void

  /// Listens at `path` for who wants `store`, which is called `name`; with `sharing`, for several at once,
  /// each with a disk of its own. `report` gets a sentence when all is ready, and the first time that a
  /// front end comes, that one goes, and that something is wrong; in the end, how often else. It is called
  /// by the thread that runs the server.
  package init(
    _ store: any BlockStore, name: String, serial: String, queueCount: Int, at path: String,
    sharing: Sharing? = nil, report: @escaping @Sendable (String) -> Void
  ) throws(Errno) {
    let reports = try DeviceReports()
    let turns = try BackEndTurns()
    listener = try UnixListener(at: path)
    self.turns = turns
    self.reports = reports
    self.store = store
    self.name = name
    self.serial = serial
    self.queueCount = queueCount
    self.sharing = sharing
    write = report
  }

  /// Serves until one of `signals` comes, and returns that one; or with `once` until the last front end of
  /// the first has gone, and returns nil. What was written is on stable storage then.
  package borrowing func run(until signals: SignalSource, once: Bool) throws(Errno) -> Signal? {
    let poller = try Poller()
    _ = try poller.add(reports.event.descriptor, tag: Tag.reports)
    var present: [UInt64: FrontEnd] = [:]
    var done: [RequestStatistics] = []
    var number = 0
    defer {
      for frontEnd in present.values { end(frontEnd, &done) }
      turns.end()
      tell(done)
      for text in reports.drain() + reports.summary() + turns.account { write(text) }
    }
    Takeover.act(as: .loop)
    // A signal finds its way from here on.
    report(Kind.ready, "serves \(name)")
    _ = try poller.add(signals.descriptor, tag: Tag.signal)
    _ = try poller.add(listener.descriptor, tag: Tag.listener)
    while true {
      guard let tag = poller.next(milliseconds: nil) else { continue }
      switch tag {
      case Tag.reports: for text in reports.drain() { write(text) }
      case Tag.signal: if let signal = signals.next() { return signal }
      case Tag.listener:
        // Who has gone makes room.
        for (tag, frontEnd) in present where hasGone(frontEnd) {
          end(frontEnd, &done)
          present[tag] = nil
        }
        if once && present.isEmpty && number > 0 { return nil }
        let socket = try listener.accept()
        guard present.count < sharing?.most ?? 1 else {
          // It must not wait for the end of the present ones without a word.
          report(
            Kind.refused,
            "another front end was sent away: it serves \(sharing.map { "\($0.most)" } ?? "one") at a time"
          )
          continue
        }
        guard let frontEnd = meet(number + 1, socket) else { continue }
        number += 1
        let tag = Tag.frontEnds + UInt64(number)
        present[tag] = frontEnd
        try frontEnd.session.withSocket { (socket) throws(Errno) in
          _ = try poller.add(socket, tag: tag)
        }
      default:
        guard let frontEnd = present[tag], hasGone(frontEnd) else { continue }
        end(frontEnd, &done)
        present[tag] = nil
        if once && present.isEmpty { return nil }
      }
    }
  }

  /// Begins to serve a front end, which is the machine of that number; nil if there is no disk for it.
  private borrowing func meet(_ number: Int, _ socket: consuming UnixSocket) -> FrontEnd? {
    let reports = reports
    guard let sharing else {
      report(Kind.came, "a front end has come")
      let device = VirtioBlock(store, serial: serial, queueCount: queueCount)
      return FrontEnd(
        number,
        BackEndSession(device, socket) { reports.report(Kind.ring, "", $0) })
    }
    guard let base = sharing.makeDisk() else {
      report(Kind.refused, "a front end was sent away: it can't be given a disk of its own")
      return nil
    }
    let machine = "machine \(number)"
    reports.report(Kind.came, machine, "\(machine) has come")
    let disk = DiskInTurns(base)
    let device = VirtioBlock(disk, serial: serial, queueCount: queueCount)
    let seat = BackEndSeat(turns, machine: number, disk: disk)
    return FrontEnd(
      number,
      BackEndSession(device, socket, seat: seat) { text in
        reports.report(Kind.ring, machine, "\(machine): \(text)")
      })
  }

  /// Does what a front end has said; true if it is at its end, and how that came is told then.
  private borrowing func hasGone(_ frontEnd: FrontEnd) -> Bool {
    do throws(VhostUserError) { try frontEnd.session.serve() } catch {
      let name = sharing == nil ? "" : "machine \(frontEnd.number)"
      let who = sharing == nil ? "the front end" : name
      if error == .closed {
        reports.report(Kind.went, name, "\(who) has gone")
      } else {
        reports.report(Kind.sentAway, name, "\(who) was sent away: \(error)")
      }
      return true
    }
    return false
  }

  /// Ends the work for a front end, and adds what its rings did.
  private borrowing func end(_ frontEnd: FrontEnd, _ done: inout [RequestStatistics]) {
    frontEnd.session.end()
    let rings = frontEnd.session.statistics
    while done.count < rings.count { done.append(RequestStatistics()) }
    for index in rings.indices { done[index].add(rings[index]) }
    guard sharing == nil else { return }
    do throws(StorageError) { try store.flush() } catch {
      report(Kind.disk, "the disk: \(error)")
    }
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
}
