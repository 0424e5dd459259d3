import Devices
import Host
import KVM
import Synchronization

/// What is recorded while a machine runs. Recording costs time on each exit; a machine without an
/// observation pays nothing.
package struct Observation: Sendable {
  /// Which exits go to the sinks.
  package var kinds: TraceKinds = .all
  /// Who gets each of them.
  package var sinks: [any TraceSink] = []

  /// The line of a terminal that both the guest and a sink write to, if there is one.
  package var terminalLine: TerminalLine?

  /// What the times of events count from: that machine goes on with them.
  let start = Clock.monotonicNanoseconds

  /// Counts exits only, for `Machine.statistics`.
  package init() {}
}

/// Whether a terminal's cursor is in the middle of a line, for those who share it.
package final class TerminalLine: Sendable {
  private let isBegun = Atomic(false)

  /// A line that is empty.
  package init() {}

  /// Notes what was written last.
  package func note(_ last: UInt8) { isBegun.store(last != UInt8(ascii: "\n"), ordering: .relaxed) }

  /// What has to be written before a line of one's own, after which it is not begun.
  package func takeEnd() -> String { isBegun.exchange(false, ordering: .relaxed) ? "\n" : "" }
}

/// Kinds of events in a trace.
package struct TraceKinds: OptionSet, Sendable {
  /// The set as bits.
  package let rawValue: UInt8
  /// A set of these bits.
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Port I/O.
  package static let portIO = TraceKinds(rawValue: 1)
  /// Memory-mapped I/O.
  package static let mmio = TraceKinds(rawValue: 2)
  /// Interrupts of devices: lines that they raise and lower, messages.
  package static let interrupts = TraceKinds(rawValue: 4)
  /// Requests of disks and virtio devices, and the doorbells of their rings.
  package static let requests = TraceKinds(rawValue: 8)
  /// Everything, rare exits too.
  package static let all = TraceKinds(rawValue: 0xFF)

  /// The kinds called `name` on the command line: io, mmio, irq, requests or all.
  package init?(name: String) {
    switch name {
    case "io": self = .portIO
    case "mmio": self = .mmio
    case "irq": self = .interrupts
    case "requests": self = .requests
    case "all": self = .all
    default: return nil
    }
  }
}

/// One thing that happened, as a trace tells it. Times are in nanoseconds since the observation was made.
package struct TraceEvent: Sendable {
  /// What happened.
  package enum What: Sendable {
    /// An exit, with the data of its first access and the device that answered, if any; without data
    /// if the access is to be done again.
    case exit(Exit, data: UInt64?, device: StaticString?)
    /// A device raised or lowered the interrupt input of this number.
    case interrupt(gsi: UInt32, isRaised: Bool)
    /// A request, from `left` to `handled`, of a ring, a drive or a device, by its label such as
    /// `virtio-block 00:02.0 ring 0 requestq`.
    case request(DeviceRequest, of: String)
    /// A doorbell woke the thread that serves a ring.
    case doorbell(of: String)
    /// A device interrupted its driver.
    case deviceInterrupt(DeviceInterrupt, of: String)
  }

  /// What happened.
  package var what: What
  /// The VCPU it happened on; nil for what no VCPU did.
  package var vcpu: Int?
  /// RIP at the exit.
  package var instructionPointer: UInt64
  /// When the guest was entered before.
  package var entered: UInt64
  /// When it left, or when the event happened.
  package var left: UInt64
  /// When the exit had been dealt with.
  package var handled: UInt64
}

/// Takes a trace's events, one after the other. Called by the threads of VCPUs and one of its own.
package protocol TraceSink: AnyObject, Sendable {
  /// Takes one event.
  func record(_ event: TraceEvent)
  /// Called when the run is ended from outside, by any thread: from then on `record` must not wait for
  /// who reads the trace.
  func stopWaiting()
  /// Called once, when the run has ended.
  func finish()
  /// What went wrong with the trace, if anything did.
  var failure: String? { get }
}

extension TraceSink {
  /// For those who never wait.
  package func stopWaiting() {}
}

/// The sinks of one run with its clock.
final class TraceSinks: Sendable {
  let kinds: TraceKinds
  let sinks: [any TraceSink]
  let start: UInt64
  /// What devices did, for whoever may wait for a sink.
  private let pending = RankedMutex<[TraceEvent]>(.last, [])
  /// Held by who hands events to the sinks, one after the other.
  private let turn = Mutex(())
  /// Hands over what no VCPU does soon; nil where nobody gets it.
  private let worker: Worker?

  init(_ observation: Observation) throws(Errno) {
    start = observation.start
    kinds = observation.kinds
    sinks = observation.sinks
    worker = sinks.isEmpty ? nil : try Worker(name: "trace")
  }

  var now: UInt64 { Clock.monotonicNanoseconds &- start }

  /// Hands over what devices did, and then `event`. May wait for who reads.
  func record(_ event: TraceEvent? = nil) {
    HeldLocks.mayWait()
    turn.withLock { _ in
      let events = pending.withLock { events in
        defer { events.removeAll() }
        return events
      }
      for sink in sinks {
        for event in events { sink.record(event) }
        if let event { sink.record(event) }
      }
    }
  }

  func stopWaiting() {
    for sink in sinks { sink.stopWaiting() }
  }

  /// Ends the trace.
  func finish() {
    worker?.stop()
    record()
    for sink in sinks { sink.finish() }
  }

  func interrupt(_ gsi: UInt32, _ isRaised: Bool) {
    note(.interrupt(gsi: gsi, isRaised: isRaised), .interrupts)
  }

  /// Notes what no VCPU did, now or from `start` to `end`. Never waits.
  func note(
    _ what: TraceEvent.What, _ kind: TraceKinds, from start: UInt64? = nil, to end: UInt64? = nil
  ) {
    guard !sinks.isEmpty && kinds.contains(kind) else { return }
    let time = now
    let event = TraceEvent(
      what: what, vcpu: nil, instructionPointer: 0, entered: start ?? time, left: start ?? time,
      handled: end ?? time)
    let isFirst = pending.withLock { events in
      events.append(event)
      return events.count == 1
    }
    // Without a thread the next exit brings it.
    if isFirst { try? worker?.post { [self] in record() } }
  }

  /// What devices are told to show.
  var devices: DeviceObservation {
    guard !sinks.isEmpty, !kinds.isDisjoint(with: [.requests, .interrupts]) else {
      return DeviceObservation()
    }
    return DeviceObservation { DeviceRecorder($0, self) }
  }
}

/// Hands to the sinks what a ring, a drive or a device does.
final class DeviceRecorder: RequestObserver {
  private let source: String
  private let trace: TraceSinks

  init(_ source: String, _ trace: TraceSinks) {
    self.source = source
    self.trace = trace
  }

  func didFinish(_ request: DeviceRequest, from start: UInt64, to end: UInt64) {
    trace.note(
      .request(request, of: source), .requests, from: start &- trace.start, to: end &- trace.start)
  }

  func wasRung() { trace.note(.doorbell(of: source), .requests) }

  func didInterrupt(_ interrupt: DeviceInterrupt) {
    // A line's level is told by the line.
    guard case .message = interrupt else { return }
    trace.note(.deviceInterrupt(interrupt, of: source), .interrupts)
  }
}

/// Counts and times one VCPU's exits, and hands them to the sinks.
final class Recorder: ExitObserver, @unchecked Sendable {
  // Sound as Sendable: written by the VCPU's own thread, read by others once it has ended.

  private let trace: TraceSinks
  private var entered: UInt64 = 0
  private var left: UInt64 = 0
  private(set) var statistics = ExitStatistics()

  init(_ trace: TraceSinks) { self.trace = trace }

  func willRun() { entered = trace.now }

  func didExit() { left = trace.now }

  func didHandle(_ exit: Exit, data: UInt64?, _ runner: VCPURunner) {
    let handled = trace.now
    let device = runner.deviceName(exit)
    statistics.add(
      exit, inGuest: left &- entered, handling: handled &- left, isClaimed: device != nil)
    guard !trace.sinks.isEmpty, trace.kinds.contains(exit.traceKind) else { return }
    trace.record(
      TraceEvent(
        what: .exit(exit, data: data, device: device), vcpu: runner.vcpu.id,
        instructionPointer: runner.vcpu.instructionPointer, entered: entered, left: left,
        handled: handled))
  }
}

extension Exit {
  fileprivate var traceKind: TraceKinds {
    switch self {
    case .portIO: .portIO
    case .mmio: .mmio
    default: TraceKinds(rawValue: 0x80)
    }
  }
}
