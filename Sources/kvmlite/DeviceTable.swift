import Devices
import Machine

/// What disks and virtio devices did: a line for each ring and drive, and below it what else a device
/// counts.
struct DeviceTable {
  private let devices: [DeviceStatistics]

  init(_ devices: [DeviceStatistics]) { self.devices = devices }

  /// What is told of a ring or drive, by its heading and its key in JSON; nil for what can't be known.
  private static func values(_ ring: RequestStatistics) -> [(heading: String, key: String, UInt64?)]
  {
    let times = ring.latencies
    return [
      ("requests", "requests", ring.requests),
      ("read B", "bytes_read", ring.bytesRead),
      ("written B", "bytes_written", ring.bytesWritten),
      ("doorbells", "doorbells", ring.doorbells),
      ("interrupts", "interrupts", ring.interrupts),
      ("depth", "depth", ring.deepest.map { UInt64($0) }),
      ("p50 us", "p50_ns", times.percentile(50)),
      ("p99 us", "p99_ns", times.percentile(99)),
      ("max us", "max_ns", times.longest),
    ]
  }

  // MARK: Text

  func lines() -> [String] {
    let headings = Self.values(RequestStatistics()).map { rightColumn($0.heading, 12) }
    var lines = [column("device", 44) + headings.joined()]
    for device in devices {
      for ring in device.rings {
        let cells = Self.values(ring.statistics).map { value in
          rightColumn(value.2.map { Self.cell($0, value.key) } ?? "n/a", 12)
        }
        lines.append(column(Self.label(device, ring), 44) + cells.joined())
      }
      if device.rings.isEmpty { lines.append(column(device.label, 44) + "  no driver uses it") }
      lines += device.counters.map { column("  " + $0.name, 44) + rightColumn("\($0.value)", 12) }
    }
    return lines
  }

  private static func label(_ device: DeviceStatistics, _ ring: DeviceStatistics.Ring) -> String {
    device.label + (ring.number.map { " ring \($0) \(ring.name)" } ?? "")
  }

  private static func cell(_ value: UInt64, _ key: String) -> String {
    key.hasSuffix("_ns") ? "\(value / 1000).\(value % 1000 / 100)" : "\(value)"
  }

  // MARK: JSON

  func json() -> String {
    devices.map { device in
      let rings = device.rings.map(json).joined(separator: ",")
      let counters = device.counters.map { "\(jsonString($0.name)):\($0.value)" }
      return "{\"name\":\(jsonString(device.label)),\"rings\":[\(rings)],"
        + "\"counters\":{\(counters.joined(separator: ","))}}"
    }.joined(separator: ",")
  }

  private func json(_ ring: DeviceStatistics.Ring) -> String {
    let number = ring.number.map { "\"ring\":\($0)," } ?? ""
    let fields = Self.values(ring.statistics).map {
      "\"\($0.key)\":\($0.2.map { "\($0)" } ?? "null")"
    }
    return "{" + number + "\"name\":\(jsonString("\(ring.name)"))," + fields.joined(separator: ",")
      + "}"
  }
}
