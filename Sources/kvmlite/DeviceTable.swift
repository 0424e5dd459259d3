import Devices
import Machine

/// What devices with queues did, a line for each queue that did anything.
struct DeviceTable {
  private let devices: [DeviceStatistics]
  private static let percentiles: [UInt64] = [50, 99, 100]

  init(_ devices: [DeviceStatistics]) { self.devices = devices }

  // MARK: Text

  func lines() -> [String] {
    let names = [
      "requests", "KiB", "doorbells", "interrupts", "depth", "p50 us", "p99 us", "max us",
    ]
    var lines = [column("device and queue", 22) + names.map { rightColumn($0, 11) }.joined()]
    for (index, device) in devices.enumerated() {
      for (number, queue) in device.queues.enumerated() where queue.doorbells > 0 {
        let counts = [
          queue.requests, queue.bytes >> 10, queue.doorbells, queue.interrupts,
          UInt64(queue.deepest),
        ].map { "\($0)" }
        let times = Self.percentiles.map { percent in
          // Times are powers of two: what the column says is an upper bound.
          queue.latency(percent: percent).map { "<\(($0 + 999) / 1000)" } ?? "-"
        }
        lines.append(
          column("\(device.name).\(index) \(number)", 22)
            + (counts + times).map { rightColumn($0, 11) }.joined())
      }
    }
    return lines
  }

  // MARK: JSON

  func json() -> String {
    devices.map { device in
      let queues = device.queues.map(json).joined(separator: ",")
      return "{\"name\":\(jsonString(device.name.description)),\"queues\":[\(queues)]}"
    }.joined(separator: ",")
  }

  private func json(_ queue: QueueStatistics) -> String {
    var fields = [
      "\"requests\":\(queue.requests)", "\"bytes\":\(queue.bytes)",
      "\"doorbells\":\(queue.doorbells)", "\"interrupts\":\(queue.interrupts)",
      "\"depth\":\(queue.deepest)",
    ]
    for percent in Self.percentiles {
      guard let bound = queue.latency(percent: percent) else { continue }
      fields.append("\"p\(percent)_below_ns\":\(bound)")
    }
    return "{" + fields.joined(separator: ",") + "}"
  }
}
