import FoundationEssentials
import Inspect

/// A trace file's exits and requests by device and time.
struct Timeline {
  /// One device's exits, or one ring's or drive's requests.
  struct Lane {
    let device: String
    let isExits: Bool
    /// When each came, in microseconds since the start.
    var times: [Double] = []
    /// How long they took in all, in microseconds.
    var handling: Double = 0
  }

  /// The lanes: exits before requests, the busiest first.
  let lanes: [Lane]
  /// When the last event ended, in microseconds since the start.
  let end: Double
  /// How many VCPUs there were.
  let vcpuCount: Int
  /// Time inside the guest and KVM, all VCPUs together, in microseconds.
  let inGuest: Double

  /// The times that a trace can have: 30 years, in microseconds. All other numbers are lies, and some
  /// of them are too large to count with.
  private static let times = 0...1e15

  // What ChromeTrace writes; anything else in the file is passed over.
  private struct File: Decodable {
    let traceEvents: [Event]
  }

  private struct Event: Decodable {
    let ph: String
    let cat: String?
    let ts: Double?
    let dur: Double?
    let tid: Int?
    let args: Arguments?
  }

  private struct Arguments: Decodable {
    let device: String?
  }

  /// Reads the contents of a trace file; throws what is wrong with it, in words.
  init(json: [UInt8]) throws(Failure) {
    let file: File
    do { file = try JSONDecoder().decode(File.self, from: Data(json)) } catch {
      throw Failure(status: 65, message: "no trace of kvmlite --trace-file: \(Self.reason(error))")
    }
    var lanes: [String: Lane] = [:]
    var vcpus: Set<Int> = []
    var end = 0.0
    var inGuest = 0.0
    for event in file.traceEvents where event.ph == "X" {
      guard let start = event.ts, let duration = event.dur, Self.times.contains(start),
        Self.times.contains(duration)
      else { continue }
      end = max(end, start + duration)
      let isExit = event.cat == "exit"
      if event.cat == "guest" { inGuest += duration }
      if isExit || event.cat == "guest" { vcpus.insert(event.tid ?? 0) }
      guard isExit || event.cat == "request" else { continue }
      let device = event.args?.device ?? "none"
      var lane = lanes[device] ?? Lane(device: device, isExits: isExit)
      lanes[device] = nil
      lane.times.append(start)
      lane.handling += duration
      lanes[device] = lane
    }
    guard !lanes.isEmpty else {
      throw Failure(status: 65, message: "the trace has no exits and no requests in it")
    }
    self.lanes = lanes.values.sorted {
      ($0.isExits ? 1 : 0, $0.times.count, $1.device)
        > ($1.isExits ? 1 : 0, $1.times.count, $0.device)
    }
    // An axis has a length.
    self.end = max(end, 1)
    self.inGuest = inGuest
    vcpuCount = vcpus.count
  }

  private static func reason(_ error: any Error) -> String {
    guard let error = error as? DecodingError else { return "\(error)" }
    return switch error {
    case .dataCorrupted(let context), .keyNotFound(_, let context),
      .typeMismatch(_, let context), .valueNotFound(_, let context):
      context.debugDescription
    @unknown default: "\(error)"
    }
  }
}
