import Devices
import Host
import KVM
import Machine
import Synchronization

/// Writes a trace as Chrome trace events, which ui.perfetto.dev and chrome://tracing load.
///
/// Each VCPU is a thread with two kinds of slices: time inside the guest, and the handling of each
/// exit. Each ring of a device and each drive is one too, with a slice for each request. The file
/// gets its name only when it is whole; a trace that fails leaves nothing behind.
package final class ChromeTrace: TraceSink {
  private struct State {
    var buffer: [UInt8] = []
    var isFirst = true
    var knownVCPUs: Set<Int> = []
    /// Threads that stand for rings, drives and devices.
    var deviceThreads: [String: Int] = [:]
    var failure: String?
  }

  private let output: OutputFile
  private let state = Mutex(State())

  /// Starts the trace at `path`.
  package init(path: String) throws(Errno) {
    output = try OutputFile(path)
    state.withLock { $0.buffer += Array("{\"traceEvents\":[".utf8) }
  }

  /// What went wrong with the trace, if anything did.
  package var failure: String? { state.withLock { $0.failure } }

  /// Appends one event.
  package func record(_ event: TraceEvent) {
    state.withLock { state in
      guard state.failure == nil else { return }
      if let vcpu = event.vcpu, state.knownVCPUs.insert(vcpu).inserted {
        name(thread: vcpu, "VCPU \(vcpu)", &state)
      }
      let thread = event.source.map { self.thread(for: $0, &state) }
      for json in Self.json(event, thread ?? 0) { append(json, &state) }
      if state.buffer.count >= 1 << 16 { flush(&state) }
    }
  }

  /// Ends the file and gives it its name.
  package func finish() {
    state.withLock { state in
      guard state.failure == nil else { return }
      state.buffer += Array("\n],\"displayTimeUnit\":\"ns\"}\n".utf8)
      flush(&state)
      guard state.failure == nil else { return }
      do throws(Errno) { try output.commit() } catch { fail(error, &state) }
    }
  }

  private func name(thread: Int, _ name: String, _ state: inout State) {
    append(
      "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":\(thread),"
        + "\"args\":{\"name\":\"\(name)\"}}", &state)
  }

  private func thread(for source: String, _ state: inout State) -> Int {
    if let known = state.deviceThreads[source] { return known }
    let thread = Self.firstDeviceThread + state.deviceThreads.count
    state.deviceThreads[source] = thread
    name(thread: thread, source, &state)
    return thread
  }

  /// Above all VCPUs' numbers.
  private static let firstDeviceThread = 1 << 20

  private func append(_ json: String, _ state: inout State) {
    state.buffer += Array((state.isFirst ? "\n" : ",\n").utf8)
    state.buffer += Array(json.utf8)
    state.isFirst = false
  }

  private func flush(_ state: inout State) {
    do throws(Errno) { try output.write(state.buffer) } catch { fail(error, &state) }
    state.buffer.removeAll(keepingCapacity: true)
  }

  private func fail(_ error: Errno, _ state: inout State) {
    output.abandon()
    state.failure = "the trace file \(output.path) can't be written: \(error)"
  }

  private static func json(_ event: TraceEvent, _ thread: Int) -> [String] {
    switch event.what {
    case .exit(let exit, let data, let device):
      let vcpu = event.vcpu ?? 0
      return [
        slice("guest", "guest", vcpu, event.entered, event.left, ""),
        slice(
          exit.title, "exit", vcpu, event.left, event.handled,
          "\"rip\":\"\(hex(event.instructionPointer))\",\"data\":\"\(data.map(hex) ?? "-")\","
            + "\"device\":\"\(device.map { "\($0)" } ?? exit.lane)\"" + exit.arguments),
      ]
    case .interrupt(let gsi, let isRaised):
      return [instant("irq \(gsi) \(isRaised ? "raised" : "lowered")", "irq", "p", 0, event.left)]
    case .request(let request, let source):
      let sector = request.sector.map { "\"sector\":\($0)," } ?? ""
      return [
        slice(
          "\(request.operation)", "request", thread, event.left, event.handled,
          sector + "\"bytes\":\(request.bytes),\"result\":\"\(request.result.rawValue)\","
            + "\"device\":\"\(source)\"")
      ]
    case .doorbell: return [instant("doorbell", "doorbell", "t", thread, event.left)]
    case .deviceInterrupt(let interrupt, _):
      return [instant(interrupt.summary, "irq", "t", thread, event.left)]
    }
  }

  private static func instant(
    _ name: String, _ category: String, _ scope: String, _ thread: Int, _ time: UInt64
  ) -> String {
    "{\"name\":\"\(name)\",\"cat\":\"\(category)\",\"ph\":\"i\",\"s\":\"\(scope)\","
      + "\"pid\":1,\"tid\":\(thread),\"ts\":\(decimal(time))}"
  }

  private static func slice(
    _ name: String, _ category: String, _ vcpu: Int, _ start: UInt64, _ end: UInt64,
    _ arguments: String
  ) -> String {
    "{\"name\":\"\(name)\",\"cat\":\"\(category)\",\"ph\":\"X\",\"pid\":1,\"tid\":\(vcpu),"
      + "\"ts\":\(decimal(start)),\"dur\":\(decimal(end &- start)),\"args\":{\(arguments)}}"
  }

  /// Nanoseconds as the format's microseconds, with three decimals.
  private static func decimal(_ nanoseconds: UInt64) -> String {
    let fraction = String(nanoseconds % 1000)
    return "\(nanoseconds / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
  }
}

extension TraceEvent {
  /// The label of the ring, drive or device that it is about, if it is about one.
  fileprivate var source: String? {
    switch what {
    case .exit, .interrupt: nil
    case .request(_, let source), .doorbell(let source), .deviceInterrupt(_, let source): source
    }
  }
}

extension Exit {
  /// A slice's name: what would be said of it aloud.
  fileprivate var title: String {
    switch self {
    case .portIO(let io): "\(io.isWrite ? "out" : "in") \(hex(UInt64(io.port)))"
    case .mmio(let access): "mmio \(access.isWrite ? "write" : "read") \(hex(access.address))"
    default: shortName
    }
  }

  /// What stands for the device of an exit that none answered.
  fileprivate var lane: String {
    switch self {
    case .portIO, .mmio: "none"
    default: shortName
    }
  }

  /// More arguments of a slice, each with a comma before it.
  fileprivate var arguments: String {
    switch self {
    case .portIO(let io): ",\"size\":\(io.width),\"count\":\(io.count)"
    case .mmio(let access): ",\"size\":\(access.width)"
    default: ""
    }
  }
}
