import Devices
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
    for device in machine.inventory.places {
      let place = range(device.range.lowerBound, device.range.upperBound)
      row("\(device.name)", (device.isPorts ? "ports   " : "memory  ") + place)
    }
    tellPCI()
  }

  private func tellPCI() {
    Message.heading("PCI")
    for (address, function) in machine.inventory.functions {
      let identity = function.identity
      var interrupts: [String] = []
      if function.hasPin {
        let pin = PCIInterruptLines.pin(of: address)
        let global = Layout.pciInterrupt(device: address.device, pin: pin)
        interrupts.append("GSI \(global) or IRQ \(function.interruptLine)")
      }
      if let vectors = function.slot.msix?.count { interrupts.append("\(vectors) MSI-X vectors") }
      row(
        "\(address)",
        digits(identity.vendor) + ":" + digits(identity.device)
          + column("  \(identity.kind.name)", 16) + "  \(function.name)"
          + (interrupts.isEmpty ? "" : "  " + interrupts.joined(separator: ", ")))
      let ranges = zip(function.bars, function.places).sorted { $0.0.index < $1.0.index }
      for (bar, place) in ranges { row("", "  " + tell(bar, place)) }
    }
  }

  private func tell(_ bar: PCIBAR, _ place: BusAddress?) -> String {
    let last = bar.size - 1
    let place =
      switch place {
      case .port(let port): "ports   " + self.range(UInt64(port), UInt64(port) + last)
      case .memory(let address): "memory  " + self.range(address, address + last)
      case nil: "off"
      }
    return "BAR \(bar.index)  \(place)"
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
