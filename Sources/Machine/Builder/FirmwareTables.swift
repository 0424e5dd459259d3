import ACPI
import Boot
import Devices
import KVM
import Memory

/// The tables that a PC's firmware leaves for the kernel: ACPI's and the MP tables, from the inventory.
///
/// Nothing here is firmware that runs; the machine writes them before the first VCPU starts, and again
/// at each reset.
struct FirmwareTables {
  private let platform: PlatformDescription

  /// The tables of a machine with these devices and so many processors, which are as `cpuid` says.
  init(_ nodes: [DeviceNode], _ pci: PCIBus, _ cpuid: CPUID, vcpuCount: Int) {
    let power = nodes.first { $0.table == .powerManagement }?.firstPort ?? 0
    let clock = nodes.first { $0.table == .realTimeClock }?.firstPort ?? 0
    var platform = PlatformDescription(
      processors: (0..<vcpuCount).map { UInt32($0) },
      localAPIC: UInt32(Layout.localAPIC.value),
      ioapic: .init(id: 0, address: UInt32(Layout.ioapic.value), interruptBase: 0),
      powerManagement: .init(
        event: power, control: power + 4, timer: power + 8,
        interrupt: UInt16(Layout.systemControlInterrupt),
        powerOffType: PowerManagement.powerOffType),
      reset: .init(port: Layout.reset.port, value: Layout.reset.value),
      realTimeClock: clock)
    if let leaf = cpuid.entry(1) {
      platform.processorIdentity = .init(signature: leaf.eax, features: leaf.edx)
    }
    // The timer isn't at the input of its number. Without an override the SCI would be active low,
    // which KVM's IOAPIC doesn't know.
    platform.overrides = [
      .init(
        interrupt: UInt8(Layout.timerInterrupt), globalInterrupt: Layout.timerInput,
        isLevelTriggered: false),
      .init(
        interrupt: UInt8(Layout.systemControlInterrupt),
        globalInterrupt: Layout.systemControlInterrupt, isLevelTriggered: true),
    ]
    for node in nodes { node.tell(to: &platform) }
    platform.pci = Self.describe(pci.windows)
    self.platform = platform
  }

  private static func describe(_ windows: PCIBus.Windows) -> PlatformDescription.PCI {
    func range<T: FixedWidthInteger>(_ window: PCIWindow) -> ClosedRange<T> {
      T(window.start)...T(window.start + (window.count - 1))
    }
    return .init(
      configuration: Layout.pciConfigurationMemory.value,
      configurationPorts: Layout.pciConfiguration.start, ports: range(windows.ports),
      memory32: range(windows.memory32), memory64: windows.memory64.map(range),
      interrupts: (0..<32).map { device in
        (0..<4).map { Layout.pciInterrupt(device: device, pin: $0) }
      })
  }

  /// The same ACPI tables as files of fw_cfg, for firmware that puts them where it has room.
  var files: [FirmwareConfiguration.File] {
    TableLoader(platform).files.map { .init(name: $0.name, bytes: $0.bytes) }
  }

  // MARK: For kernels

  /// Where the tables of a machine with so many processors are, unless an image is there. It has room
  /// for more than any machine's devices need.
  static func room(vcpuCount: Int) -> FirmwareRoom {
    let page = GuestMemory.pageSize
    let acpi = (0x2000 + 64 * UInt64(vcpuCount) + page - 1) & ~(page - 1)
    let (start, mp) = (Layout.acpiTables.value, Layout.mpTables.value)
    return FirmwareRoom(acpi: start..<min(start + acpi, mp), mp: mp..<mp + Layout.mpTablesSize)
  }

  /// Writes the tables to where `plan` has them, if it has any.
  func write(for plan: BootPlan, to memory: GuestMemory) throws(GuestMemory.OutOfBounds) {
    guard let room = plan.tables else { return }
    let acpi = ACPITables(platform, at: GuestAddress(room.acpi.lowerBound))
    let mp = MPTable(platform, at: GuestAddress(room.mp.lowerBound))
    precondition(acpi.bytes.count <= room.acpi.count && mp.bytes.count <= room.mp.count)
    try memory.write(acpi.bytes.span, at: acpi.start)
    try memory.write(mp.bytes.span, at: mp.start)
  }
}

extension DeviceNode {
  /// Adds what the tables say of this device, unless it is one of those that every machine has once.
  fileprivate func tell(to platform: inout PlatformDescription) {
    switch table {
    case .serialPort:
      guard let port = firstPort, let interrupt = interrupts.first else { return }
      platform.serialPorts.append(
        .init(port: port, interrupt: UInt8(truncatingIfNeeded: interrupt)))
    case .virtio:
      guard let memory, let interrupt = interrupts.first else { return }
      platform.virtioDevices.append(
        .init(
          start: UInt32(truncatingIfNeeded: memory.lowerBound),
          count: UInt32(truncatingIfNeeded: memory.count), interrupt: interrupt))
    case .generalPurposeEvents: platform.generalPurposeEvents = firstPort
    case .generation:
      platform.generation = memory.map {
        .init(address: $0.lowerBound, event: UInt8(Layout.generationEvent))
      }
    case .realTimeClock, .powerManagement, nil: break
    }
  }
}
