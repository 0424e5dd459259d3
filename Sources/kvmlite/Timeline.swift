import FoundationEssentials

/// A trace file's exits by device and time.
struct Timeline {
  /// One device's exits.
  struct Lane {
    let device: String
    /// When each exit came, in microseconds since the start.
    var times: [Double] = []
    /// How long kvmlite took for them in all, in microseconds.
    var handling: Double = 0
  }

  /// The lanes, the busiest first.
  let lanes: [Lane]
  /// When the last event ended, in microseconds since the start.
  let end: Double
  /// How many VCPUs there were.
  let vcpuCount: Int
  /// Time inside the guest and KVM, all VCPUs together, in microseconds.
  let inGuest: Double

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
      guard let start = event.ts, let duration = event.dur, start.isFinite, duration.isFinite,
        start >= 0, duration >= 0
      else { continue }
      end = max(end, start + duration)
      vcpus.insert(event.tid ?? 0)
      if event.cat == "guest" {
        inGuest += duration
      } else if event.cat == "exit" {
        let device = event.args?.device ?? "none"
        lanes[device, default: Lane(device: device)].times.append(start)
        lanes[device, default: Lane(device: device)].handling += duration
      }
    }
    guard !lanes.isEmpty else {
      throw Failure(status: 65, message: "the trace has no exits in it")
    }
    self.lanes = lanes.values.sorted {
      ($0.times.count, $1.device) > ($1.times.count, $0.device)
    }
    self.end = end
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
