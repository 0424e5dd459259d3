import Devices
import Machine

/// Prints what was counted during a run, as a table or as JSON.
struct StatisticsReport {
  private let statistics: RunStatistics

  init(_ statistics: RunStatistics) { self.statistics = statistics }

  func tell(_ format: StatisticsFormat) {
    switch format {
    case .text: for line in table() { Message.line(line) }
    case .json: Message.line(json())
    }
  }

  // MARK: Text

  private func table() -> [String] {
    let exits = statistics.exits
    var lines = [
      column("exit", 34) + rightColumn("count", 10) + rightColumn("total ms", 12)
        + rightColumn("each us", 10)
    ]
    for (name, count) in exits.rows {
      lines.append(
        column(name, 34) + rightColumn("\(count.count)", 10)
          + rightColumn(decimal(count.handling, 1_000_000), 12)
          + rightColumn(decimal(count.handling / count.count, 1000), 10))
    }
    lines.append("")
    lines += rows([
      ("wall-clock time", decimal(statistics.elapsed, 1_000_000) + " ms"),
      ("in the guest and KVM", decimal(exits.inGuest, 1_000_000) + " ms"),
      ("in kvmlite", decimal(statistics.inKvmlite, 1_000_000) + " ms"),
      ("accesses nobody claimed", "\(exits.unclaimed)"),
      ("repeated accesses", "\(exits.repeated)"),
      (
        "memory touched",
        "\(statistics.touchedMemory >> 10) KiB of \(statistics.memorySize >> 10) KiB "
          + "(\(statistics.touchedMemory >> 12) pages)"
      ),
    ])
    if !statistics.devices.isEmpty { lines += [""] + DeviceTable(statistics.devices).lines() }
    if !statistics.kernel.isEmpty {
      lines += ["", "KVM's own counters, VM and \(statistics.vcpuCount) VCPU(s):"]
      lines += rows(statistics.kernel.map { ($0.name, "\($0.value)") })
    }
    return lines
  }

  private func rows(_ pairs: [(String, String)]) -> [String] {
    pairs.map { column("  " + $0.0, 34) + $0.1 }
  }

  /// `value` in units of `unit`, with three decimals.
  private func decimal(_ value: UInt64, _ unit: UInt64) -> String {
    let thousandths = value / (unit / 1000)
    let fraction = String(thousandths % 1000)
    return "\(thousandths / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
  }

  // MARK: JSON

  /// All of it. Times are in nanoseconds; what nobody can know is null or left out.
  func json() -> String {
    let exits = statistics.exits.rows.map {
      "\(jsonString($0.name)):{\"count\":\($0.count.count),"
        + "\"handling_ns\":\($0.count.handling)}"
    }
    let kernel = statistics.kernel.map { "\(jsonString($0.name)):\($0.value)" }
    let fields = [
      "\"exits\":{\(exits.joined(separator: ","))}",
      "\"elapsed_ns\":\(statistics.elapsed)",
      "\"guest_ns\":\(statistics.exits.inGuest)",
      "\"kvmlite_ns\":\(statistics.inKvmlite)",
      "\"unclaimed\":\(statistics.exits.unclaimed)",
      "\"repeated\":\(statistics.exits.repeated)",
      "\"vcpus\":\(statistics.vcpuCount)",
      "\"memory_bytes\":\(statistics.memorySize)",
      "\"touched_bytes\":\(statistics.touchedMemory)",
      "\"devices\":[\(DeviceTable(statistics.devices).json())]",
      "\"kvm\":{\(kernel.joined(separator: ","))}",
    ]
    return "{" + fields.joined(separator: ",") + "}"
  }
}
