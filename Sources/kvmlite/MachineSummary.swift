import Machine

/// Tells what a machine is made of, before it runs.
struct MachineSummary {
  private let machine: Machine

  init(_ machine: Machine) { self.machine = machine }

  func tell() {
    Message.heading("Machine")
    row("image", "\(machine.format), entered in \(machine.entryMode.rawValue) mode")
    if let commandLine = machine.commandLine { row("command line", commandLine) }
    row("VCPUs", "\(machine.vcpuCount), features: \(machine.cpu.rawValue)")
    for region in machine.memory.regions {
      let last = region.start.value + region.count - 1
      row(
        region.kind == .ram ? "RAM" : "ROM",
        "\(range(region.start.value, last))  \(region.count >> 10) KiB")
    }
    Message.heading("Devices")
    for device in machine.devices {
      let place = range(device.start, device.last)
      row("\(device.name)", (device.bus == .ports ? "ports   " : "memory  ") + place)
    }
  }

  private func row(_ name: String, _ text: String) { Message.line(column("  " + name, 18) + text) }

  private func range(_ first: UInt64, _ last: UInt64) -> String {
    first == last ? hex(first) : hex(first) + "-" + hex(last)
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
