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
    tellPCI()
  }

  private func tellPCI() {
    Message.heading("PCI")
    for function in machine.pciFunctions {
      let identity = function.identity
      var interrupts: [String] = []
      if let pin = function.pin { interrupts.append("GSI \(pin.global) or IRQ \(pin.isa)") }
      if function.vectors > 0 { interrupts.append("\(function.vectors) MSI-X vectors") }
      row(
        "\(function.address)",
        digits(identity.vendor) + ":" + digits(identity.device)
          + column("  \(identity.kind.name)", 16) + "  \(function.name)"
          + (interrupts.isEmpty ? "" : "  " + interrupts.joined(separator: ", ")))
      for range in function.ranges { row("", "  " + tell(range)) }
    }
  }

  private func tell(_ range: Machine.PCIPlace.Range) -> String {
    let last = range.bar.size - 1
    let place =
      switch range.place {
      case .port(let port): "ports   " + self.range(UInt64(port), UInt64(port) + last)
      case .memory(let address): "memory  " + self.range(address, address + last)
      case nil: "off"
      }
    return "BAR \(range.bar.index)  \(place)"
  }

  private func digits(_ id: UInt16) -> String {
    let text = String(id, radix: 16)
    return String(repeating: "0", count: 4 - text.count) + text
  }

  private func row(_ name: String, _ text: String) { Message.line(column("  " + name, 18) + text) }

  private func range(_ first: UInt64, _ last: UInt64) -> String {
    first == last ? hex(first) : hex(first) + "-" + hex(last)
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
