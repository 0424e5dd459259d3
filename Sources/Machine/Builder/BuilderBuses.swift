import Devices
import Host
import Memory

/// Putting devices at their places, and listing them.
extension Builder {
  /// The interrupt input `gsi`, for a device to drive.
  mutating func line(_ gsi: UInt32) -> KVMInterruptLine {
    let line = KVMInterruptLine(gsi: gsi, trace: trace)
    lines.append(line)
    return line
  }

  /// Adds a device that has nothing but ports, and remembers nothing.
  mutating func addStateless(_ id: String, _ device: any Device, at ports: Layout.Ports) {
    add(id, device.name, [.ports(ports.range, device)])
  }

  /// Adds a device that has nothing but ports.
  mutating func add(
    _ id: String, _ device: any Device & Stateful, at ports: Layout.Ports,
    interrupt: UInt32? = nil, table: DeviceNode.TableEntry? = nil
  ) {
    add(
      id, device.name, [.ports(ports.range, device)], interrupts: interrupt.map { [$0] } ?? [],
      table: table, stateful: [("", device)])
  }

  /// Adds the device `id` with its parts. What of it has registers is listed by a name behind its own.
  mutating func add(
    _ id: String, _ kind: StaticString, _ parts: [DeviceNode.Part], interrupts: [UInt32] = [],
    table: DeviceNode.TableEntry? = nil, stateful: [(name: String, device: any Stateful)] = [],
    pausable: [any Pausable] = [],
    statistics: @escaping @Sendable () -> [DeviceStatistics] = { [] },
    traffic: @escaping @Sendable () -> DeviceTraffic = { DeviceTraffic() }
  ) {
    precondition(!nodes.contains { $0.id == id }, "two devices called \(id)")
    for part in parts { put(part) }
    nodes.append(
      DeviceNode(
        id: id, kind: kind, parts: parts, interrupts: interrupts, table: table,
        statistics: statistics, traffic: traffic,
        stateful: stateful.map { ($0.name.isEmpty ? id : "\(id).\($0.name)", $0.device) },
        pausable: pausable))
  }

  private mutating func put(_ part: DeviceNode.Part) {
    // The layout is ours, so an overlap is a mistake of kvmlite's own.
    do throws(Bus.Overlap) {
      switch part {
      case .ports(let range, let device):
        try ports.add(device, at: range.lowerBound, count: UInt64(range.count))
      case .memory(let range, let device):
        try mmio.add(device, at: range.lowerBound, count: UInt64(range.count))
      case .function(let address, let function):
        precondition(!functions.contains { $0.address == address }, "two functions at \(address)")
        functions.append((address, function))
      }
    } catch { preconditionFailure("\(error)") }
  }

  // MARK: PCI

  /// Adds a device that is one function of the PCI bus, at `address` or where there is room.
  mutating func addFunction(
    _ id: String, _ function: PCIFunction, at address: PCIAddress? = nil
  ) throws(MachineError) {
    let place: PCIAddress
    if let address { place = address } else { place = try freeFunction(for: id) }
    add(id, function.name, [.function(place, function)], stateful: [("", function)])
  }

  /// The next device on the PCI bus that is free, from 2 on; device 1 is for the chip set.
  func freeFunction(for id: String) throws(MachineError) -> PCIAddress {
    let free = (2..<32 as Range<UInt8>).first { device in
      !functions.contains { $0.address.device == device }
    }
    guard let free else {
      throw .configuration("a PCI bus has room for 30 devices: \(id) is one too many")
    }
    return PCIAddress(device: free)
  }

  /// The bus, when all functions are there, with what stands for it on the other two.
  mutating func addPCIBus() -> PCIBus {
    let router = PCIInterruptLines(
      ioapic: Layout.pciInterrupts.map { line($0) },
      pic: Layout.pciISAInterrupts.map { line(UInt32($0)) })
    let windows = Layout.pciWindows(
      ramSize: configuration.memorySize, addressBits: cpuid.addressBits)
    let bus = PCIBus(functions, windows, router)
    // Firmware does it itself.
    if !configuration.image.isFirmware { bus.assign(interrupt: Layout.pciISAInterrupt) }
    let configurationPorts = PCIConfigurationPorts(bus, reset: ResetControl(machine: control))
    let ecam = Layout.pciConfigurationMemory.value
    var parts: [DeviceNode.Part] = [
      .ports(Layout.pciConfiguration.range, configurationPorts),
      .ports(windows.ports.range, bus.makePortWindow()),
      .memory(ecam...ecam + (PCIConfigurationMemory.size - 1), PCIConfigurationMemory(bus)),
      .memory(windows.memory32.range, bus.makeMemoryWindow()),
    ]
    if let window = windows.memory64, let device = bus.makeHighMemoryWindow() {
      parts.append(.memory(window.range, device))
    }
    add(
      "pci", "pci", parts, interrupts: Array(Layout.pciInterrupts),
      stateful: [("", configurationPorts)])
    return bus
  }

  // MARK: Virtio

  /// Adds `device`, which `node` describes, at its place on virtio's buses. Its work is done by the thread
  /// that it shares with others, or one called `worker`, unless it has its own.
  mutating func addVirtio(
    _ node: VMConfiguration.Device, _ device: any VirtioDevice, worker name: String? = nil
  ) throws {
    var surroundings = VirtioCore.Surroundings(
      memory: platform.memory, worker: try makeWorker(name), reports: reports,
      observation: trace?.devices)
    switch node.place {
    case .pci(let address):
      surroundings.place = "\(address)"
      let transport = try VirtioPCI(device, surroundings, platform)
      addVirtio(
        node.id, transport.core, .function(address, transport.function),
        [("function", transport.function), ("transport", transport)])
    case .mmio(let slot):
      let interrupt = Layout.virtioInterrupts[slot]
      let start = Layout.virtioMMIO(slot).value
      surroundings.place = hex(start)
      let transport = try VirtioMMIO(device, surroundings, line: line(interrupt))
      transport.connectDoorbells(at: start, doorbells)
      addVirtio(
        node.id, transport.core, .memory(start...start + (VirtioMMIO.size - 1), transport),
        [("transport", transport)], interrupts: [interrupt], table: .virtio)
    case .ide, nil: preconditionFailure("\(node.id) has no place on virtio's buses")
    }
  }

  private mutating func addVirtio(
    _ id: String, _ core: VirtioCore, _ part: DeviceNode.Part,
    _ transport: [(name: String, device: any Stateful)], interrupts: [UInt32] = [],
    table: DeviceNode.TableEntry? = nil
  ) {
    add(
      id, core.device.name, [part], interrupts: interrupts, table: table,
      stateful: transport, pausable: [core], statistics: { [core.statistics] },
      traffic: { core.traffic })
    stops.append { core.stop() }
  }

  private mutating func makeWorker(_ name: String?) throws(Errno) -> Worker {
    if name == nil, let sharedWorker { return sharedWorker }
    let worker = try Worker(name: name ?? "virtio")
    workers.append(worker)
    if name == nil { sharedWorker = worker }
    return worker
  }
}

extension PCIWindow {
  fileprivate var range: ClosedRange<UInt64> { start...start + (count - 1) }
}
