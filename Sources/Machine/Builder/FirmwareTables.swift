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

  /// Where the RSDP will be of a machine with so much RAM that starts an image of `format`; nil for
  /// one without tables.
  ///
  /// A plain ELF image gets them only where it leaves room, and so isn't promised any.
  static func rsdp(for format: ImageFormat, ramSize: UInt64) -> GuestAddress? {
    let isPromised =
      switch format {
      case .bzImage, .vmlinux, .pvh, .multiboot: true
      case .elf32, .elf64, .flat, .bootSector, .firmware: false
      }
    return isPromised && ramSize >= Layout.firmwareEnd.value ? Layout.acpiTables : nil
  }

  /// Writes the tables unless `plan` has no use for them or needs their place.
  func write(for plan: BootPlan, to memory: GuestMemory) throws(GuestMemory.OutOfBounds) {
    guard memory.ramSize >= Layout.firmwareEnd.value, Self.wantsTables(plan) else { return }
    let acpi = ACPITables(platform, at: Layout.acpiTables)
    let mp = MPTable(platform, at: Layout.mpTables)
    // KVM has no more than 4096 VCPUs, whose tables fit; ACPITests see to it.
    guard acpi.bytes.count <= Layout.mpTables.value - Layout.acpiTables.value else { return }
    try memory.write(acpi.bytes.span, at: acpi.start)
    try memory.write(mp.bytes.span, at: mp.start)
  }

  private static func wantsTables(_ plan: BootPlan) -> Bool {
    switch plan.format {
    case .bzImage, .vmlinux, .pvh, .multiboot: true
    case .elf32, .elf64:
      !plan.pieces.contains {
        $0.start < Layout.firmwareEnd && $0.start.value + $0.size > Layout.acpiTables.value
      }
    // Firmware has them by fw_cfg; the others may be anywhere, and their start is measured in microseconds.
    case .flat, .bootSector, .firmware: false
    }
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
    case .realTimeClock, .powerManagement, nil: break
    }
  }
}
