import Devices
import Host
import Memory

/// One device of a machine, and all that there is to know of it.
package struct DeviceNode: Sendable {
  /// A part of it that a guest reaches, and where.
  package enum Part: Sendable {
    /// On the port bus.
    case ports(ClosedRange<UInt64>, any Device)
    /// On the MMIO bus.
    case memory(ClosedRange<UInt64>, any Device)
    /// On the PCI bus.
    case function(PCIAddress, PCIFunction)
  }

  /// How firmware's tables tell of it. They name what a kernel can't find by looking for it.
  package enum TableEntry: Sendable {
    case serialPort
    case realTimeClock
    case powerManagement
    case generalPurposeEvents
    case generation
    case virtio
  }

  /// Its name on this machine, such as `disk0`; no other device has it.
  package let id: String
  /// What it is, as traces show it, such as `virtio-block`.
  package let kind: StaticString
  /// Its parts, the main one first.
  package let parts: [Part]
  /// The GSIs of the lines that are its own. PCI functions share theirs, and have vectors besides.
  package let interrupts: [UInt32]
  /// Its entry in firmware's tables, if it has one.
  package let table: TableEntry?
  /// What it did so far.
  package let statistics: @Sendable () -> [DeviceStatistics]
  /// How many bytes went by it so far; may be asked at any time, from any thread.
  package let traffic: @Sendable () -> DeviceTraffic
  /// What of it has registers, by the name of its section in a save.
  package let stateful: [(name: String, device: any Stateful)]
  /// What of it works on threads of its own.
  package let pausable: [any Pausable]
}

/// What a machine is made of: its devices, each once, and what carries their words to the processors.
/// The builder makes it, everybody else reads it.
package struct Inventory: Sendable {
  /// What the machine was to be, with each device's place.
  package let spec: VMConfiguration
  /// The devices, in the order that they were made.
  package let nodes: [DeviceNode]
  /// What answers at ports.
  package let ports: Bus
  /// What answers at addresses.
  package let mmio: Bus
  /// The PCI bus.
  package let pci: PCIBus
  /// The interrupt inputs that devices drive.
  let lines: [KVMInterruptLine]
  /// The way of messages to the processors.
  let messages: KVMMessageRouter
  /// What guests ring without an exit.
  let doorbells: KVMDoorbells
  /// Addresses where the guest finds no RAM though there is some.
  package let memoryHole: Range<UInt64>

  /// The balloon, if there is one.
  package let balloon: VirtioBalloon?
  /// ACPI's registers, to press the power button.
  package let powerManagement: PowerManagement
  /// The generation ID, for guests that are told of it.
  package let generation: GenerationID?
  /// The clock, whose alarm wakes a suspended machine.
  package let realTimeClock: RealTimeClock

  /// What devices have to tell whoever runs the machine.
  package let reports: DeviceReports

  /// The threads that devices share, and the clock's.
  let workers: [Worker]
  /// Ends what devices do on threads of their own, after the request that each is at.
  let stops: [@Sendable () -> Void]

  /// Ends all threads of devices. The guest doesn't run any more.
  func stop() {
    for stop in stops { stop() }
    for worker in workers { worker.stop() }
  }

  /// Makes all devices' registers as those of new ones, but for what a PC's battery keeps. Nothing moves.
  func reset() {
    for node in nodes { for part in node.stateful { part.device.reset() } }
    // Firmware does it itself.
    if spec.firmware == nil { pci.assign(interrupt: Layout.pciISAInterrupt) }
  }

  /// The device with that name, if there is one.
  package subscript(id: String) -> DeviceNode? { nodes.first { $0.id == id } }
}

// MARK: - Places

extension DeviceNode {
  /// Where it is on the PCI bus, if it is there.
  package var address: PCIAddress? {
    for case .function(let address, _) in parts { return address }
    return nil
  }

  /// Its first port, if it has ports.
  package var firstPort: UInt16? {
    for case .ports(let range, _) in parts { return UInt16(truncatingIfNeeded: range.lowerBound) }
    return nil
  }

  /// Its first range of addresses on the MMIO bus, if it has one.
  package var memory: ClosedRange<UInt64>? {
    for case .memory(let range, _) in parts { return range }
    return nil
  }
}

extension Inventory {
  /// Every part at ports, and then every one at addresses, as the buses have them: by rising number.
  package var places: [(name: StaticString, isPorts: Bool, range: ClosedRange<UInt64>)] {
    let places = nodes.flatMap(\.parts).compactMap {
      part -> (name: StaticString, isPorts: Bool, range: ClosedRange<UInt64>)? in
      switch part {
      case .ports(let range, let device): (device.name, true, range)
      case .memory(let range, let device): (device.name, false, range)
      case .function: nil
      }
    }
    return places.sorted {
      $0.isPorts == $1.isPorts ? $0.range.lowerBound < $1.range.lowerBound : $0.isPorts
    }
  }

  /// Every function on the PCI bus, by rising address.
  package var functions: [(address: PCIAddress, function: PCIFunction)] {
    nodes.flatMap(\.parts).compactMap { part -> (address: PCIAddress, function: PCIFunction)? in
      guard case .function(let address, let function) = part else { return nil }
      return (address, function)
    }.sorted { $0.address < $1.address }
  }
}
