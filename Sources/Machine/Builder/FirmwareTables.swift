import ACPI
import Boot
import Devices
import KVM
import Memory

/// The tables that a PC's firmware leaves for the kernel: ACPI's and the MP tables.
///
/// Nothing here is firmware that runs; the machine writes them before the first VCPU starts.
enum FirmwareTables {
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

  /// Writes the tables of a machine like `configuration`, whose processors are as `cpuid` says and have
  /// `addressBits` bits of address, unless `plan` has no use for them or needs their place.
  static func write(
    for plan: BootPlan, _ configuration: Configuration, _ cpuid: CPUID, addressBits: Int,
    to memory: GuestMemory
  ) throws(GuestMemory.OutOfBounds) {
    guard configuration.memorySize >= Layout.firmwareEnd.value, wantsTables(plan) else { return }
    var platform = describe(configuration, cpuid)
    platform.virtioDevices = Layout.virtioInterrupts.prefix(
      VirtioDevices.mmioCount(configuration)
    ).enumerated().map { index, interrupt in
      .init(
        start: UInt32(Layout.virtioMMIO(index).value), count: UInt32(VirtioMMIO.size),
        interrupt: interrupt)
    }
    platform.pci = describePCI(
      Layout.pciWindows(ramSize: configuration.memorySize, addressBits: addressBits))
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
    // Firmware makes its own; the others may be anywhere, and their start is measured in microseconds.
    case .flat, .bootSector, .firmware: false
    }
  }

  private static func describePCI(_ windows: PCIBus.Windows) -> PlatformDescription.PCI {
    func range<T: FixedWidthInteger>(_ window: PCIWindow) -> ClosedRange<T> {
      T(window.start)...T(window.start + (window.count - 1))
    }
    return .init(
      configuration: Layout.pciConfigurationMemory.value,
      configurationPorts: Layout.pciConfiguration.start, ports: range(windows.ports),
      memory32: range(windows.memory32), memory64: windows.memory64.map(range),
      interrupts: (0..<32).map { device in
        (0..<4).map { PCIWiring.globalInterrupt(device: device, pin: $0) }
      })
  }

  /// What the tables say, from where the layout has things.
  private static func describe(_ configuration: Configuration, _ cpuid: CPUID)
    -> PlatformDescription
  {
    let power = Layout.powerManagement.start
    var platform = PlatformDescription(
      processors: (0..<configuration.vcpuCount).map { UInt32($0) },
      localAPIC: UInt32(Layout.localAPIC.value),
      ioapic: .init(id: 0, address: UInt32(Layout.ioapic.value), interruptBase: 0),
      powerManagement: .init(
        event: power, control: power + 4, timer: power + 8,
        interrupt: UInt16(Layout.systemControlInterrupt),
        powerOffType: PowerManagement.powerOffType),
      reset: .init(port: Layout.reset.port, value: Layout.reset.value),
      realTimeClock: Layout.realTimeClock.start)
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
    platform.serialPorts = [
      .init(port: Layout.serial.start, interrupt: UInt8(Layout.serialInterrupt))
    ]
    return platform
  }
}
