import Boot
import Devices
import Memory

/// Every guest address, port and interrupt of the machine, in one place.
package enum Layout {
  // MARK: Guest-physical memory

  /// Descriptors for guests that start in protected or long mode, the page tables of long mode, the
  /// place of flat images and boot sectors, the first stack, and where what kernels are told goes.
  ///
  /// Of the hole below 4 GiB only the ends are reserved (PCI's configuration space; IOAPIC, local
  /// APICs, KVM's own pages, firmware): Linux gives PCI devices no addresses that its memory map
  /// reserves.
  package static let boot = BootLayout(
    flatImage: 0x1_0000, bootSector: 0x7C00, descriptorTable: 0x500, pageTables: 0x1000,
    stackTop: 0x1_0000, information: 0x3000..<0x9_F000,
    reserved: [.reserved(0xC000_0000..<0xC010_0000), .reserved(0xFEC0_0000..<0x1_0000_0000)])
  /// Where the ACPI tables start, with the RSDP: in what is ROM on a PC (ACPI 6.5, 5.2.5.1). An image
  /// that is there sends them elsewhere, as it does the MP tables.
  package static let acpiTables: GuestAddress = 0xE_0000
  /// Where the MP tables start, with the floating pointer (MultiProcessor Specification 1.4, 4).
  package static let mpTables: GuestAddress = 0xF_C000
  /// What they take at most: there are 255 processors in them.
  static let mpTablesSize: UInt64 = 0x2000
  /// Where what is ROM on a PC ends: no kernel takes what is before it for free memory.
  package static let firmwareEnd: GuestAddress = 0x10_0000
  /// 64 KiB of the test device's.
  package static let testMemory: GuestAddress = 0xFF00_0000
  /// A PC's video memory. It is RAM here but for machines with the test device: kvm-unit-tests count
  /// on its accesses to leave the guest.
  package static let videoMemory: Range<UInt64> = 0xA_0000..<0xC_0000
  /// Virtio devices on the MMIO transport, a page each.
  package static let virtioMMIO: GuestAddress = 0xC010_0000
  /// The page of virtio device `index`.
  static func virtioMMIO(_ index: Int) -> GuestAddress {
    GuestAddress(virtioMMIO.value + UInt64(index) * GuestMemory.pageSize)
  }
  /// The IOAPIC of KVM's.
  package static let ioapic: GuestAddress = 0xFEC0_0000
  /// Every VCPU's local APIC.
  package static let localAPIC: GuestAddress = 0xFEE0_0000
  /// One page that KVM needs on Intel processors without unrestricted guests: below the largest ROM
  /// that ends at 4 GiB, for KVM's own memory can't share an address with the machine's.
  package static let identityMap: GuestAddress = 0xFEFF_C000
  /// Three pages that KVM needs for the same; they follow the identity map.
  package static let taskState: GuestAddress = 0xFEFF_D000

  /// The page with the generation ID: no map of memory calls it memory, whoever makes it, and no PCI
  /// function can have it.
  package static let generation: GuestAddress = 0xFEFF_B000

  // MARK: PCI

  /// The chip set's ISA bridge, and the IDE controller beside it.
  package static let isaBridge = PCIAddress(device: 1, function: 0)
  /// The IDE controller.
  package static let ideFunction = PCIAddress(device: 1, function: 1)
  /// PCI's configuration space as memory (ECAM), for bus 0 alone. Like a Q35's it is below what functions
  /// can have: SeaBIOS gives them addresses from 0xFEC00000 down, without asking (pciinit.c).
  package static let pciConfigurationMemory: GuestAddress = 0xC000_0000
  /// Where functions can have memory below 4 GiB: up to the IOAPIC.
  static let pciMemory: Range<UInt64> = 0xC100_0000..<0xFEC0_0000

  /// Where PCI functions can have ports and memory in a machine with so much RAM, whose processors
  /// have `addressBits` bits of physical address. The window above RAM has 256 GiB, or what is there.
  package static func pciWindows(ramSize: UInt64, addressBits: Int) -> PCIBus.Windows {
    let low = GuestMemory.holeStart
    let ramEnd = GuestMemory.holeEnd + (ramSize > low ? ramSize - low : 0)
    let start = (ramEnd + gibibyte - 1) & ~(gibibyte - 1)
    let end = min(start + 256 * gibibyte, 1 << UInt64(min(max(addressBits, 32), 47)))
    return PCIBus.Windows(
      ports: PCIWindow(start: 0xC000, count: 0x4000),
      memory32: PCIWindow(
        start: pciMemory.lowerBound, count: pciMemory.upperBound - pciMemory.lowerBound),
      memory64: end > start ? PCIWindow(start: start, count: end - start) : nil)
  }

  private static let gibibyte: UInt64 = 1 << 30

  // MARK: Ports

  /// A stretch of ports.
  package struct Ports: Sendable {
    /// The first port.
    package let start: UInt16
    /// How many there are.
    package let count: UInt16
    /// All of them.
    package var range: ClosedRange<UInt64> { UInt64(start)...UInt64(start) + UInt64(count - 1) }
  }

  /// Keyboard controller: data, and status and command at 0x64.
  package static let keyboardData = Ports(start: 0x60, count: 1)
  /// Keyboard controller: status and command.
  package static let keyboardCommand = Ports(start: 0x64, count: 1)
  /// Index and data of the real-time clock and its CMOS memory.
  package static let realTimeClock = Ports(start: 0x70, count: 2)
  /// Progress codes.
  package static let post = Ports(start: 0x80, count: 1)
  /// Fast reset and A20.
  package static let systemControl = Ports(start: 0x92, count: 1)
  /// The test device of kvm-unit-tests: latch, flush, and the latch again.
  package static let testDevice = Ports(start: 0xE0, count: 12)
  /// Debug console, as in Bochs and QEMU.
  package static let debugConsole = Ports(start: 0xE9, count: 1)
  /// Exit port, as QEMU's isa-debug-exit.
  package static let exit = Ports(start: 0xF4, count: 4)
  /// The first serial port.
  package static let serial = Ports(start: 0x3F8, count: 8)
  /// QEMU's fw_cfg: selector and data.
  package static let firmwareConfiguration = Ports(start: 0x510, count: 2)
  /// ACPI's fixed hardware, as QEMU's PC has it: PM1a's events at 0, its control at 4, the timer at
  /// 8.
  package static let powerManagement = Ports(start: 0x600, count: 12)
  /// ACPI's general-purpose events, behind them.
  package static let generalPurposeEvents = Ports(start: 0x60C, count: 4)
  /// PCI's configuration address, whose second byte is the reset control register of Intel's chip
  /// sets, and data.
  package static let pciConfiguration = Ports(start: 0xCF8, count: 8)
  /// The reset control register itself, and what a hard reset by it takes.
  package static let reset: (port: UInt16, value: UInt8) = (0xCF9, 0x06)
  /// The interrupt lines of the test device, a port each.
  package static let testInterrupts = Ports(start: 0x2000, count: 24)

  /// The two 8259s with their edge/level registers, and the 8254 with its port: KVM's own, in the
  /// kernel.
  package static let interruptControllerPorts = [
    Ports(start: 0x20, count: 2), Ports(start: 0x40, count: 4), Ports(start: 0x61, count: 1),
    Ports(start: 0xA0, count: 2), Ports(start: 0x4D0, count: 2),
  ]

  /// The registers of the IDE channels, the primary and the secondary one: the Command Blocks.
  package static let ideCommand = [Ports(start: 0x1F0, count: 8), Ports(start: 0x170, count: 8)]
  /// The one port of their Control Blocks that isn't a floppy controller's.
  package static let ideControl = [Ports(start: 0x3F6, count: 1), Ports(start: 0x376, count: 1)]

  // MARK: Interrupts

  /// The first serial port's interrupt.
  package static let serialInterrupt: UInt32 = 4
  /// The clock's interrupt.
  package static let realTimeClockInterrupt: UInt32 = 8
  /// The IDE channels' interrupts, the primary's and the secondary's.
  package static let ideInterrupts: (primary: UInt32, secondary: UInt32) = (14, 15)
  /// The SCI, ACPI's interrupt: level-triggered, active high.
  package static let systemControlInterrupt: UInt32 = 9
  /// The general-purpose event that tells of a new generation ID, the same as QEMU's.
  static let generationEvent = 5
  /// The IOAPIC's inputs that pins of PCI functions go to, level-triggered.
  package static let pciInterrupts: Range<UInt32> = 16..<24
  /// The ISA interrupts that they go to for kernels that use the 8259s.
  package static let pciISAInterrupts: [UInt8] = [10, 11]
  /// The IOAPIC's input of a PCI device's pin, 0 for INTA# to 3.
  package static func pciInterrupt(device: UInt8, pin: UInt8) -> UInt32 {
    pciInterrupts.lowerBound
      + UInt32(PCIInterruptLines.line(device: device, pin: pin, count: pciInterrupts.count))
  }
  /// The ISA interrupt that firmware notes for a function's pin.
  package static func pciISAInterrupt(_ address: PCIAddress) -> UInt8 {
    let pin = PCIInterruptLines.pin(of: address)
    return pciISAInterrupts[
      PCIInterruptLines.line(device: address.device, pin: pin, count: pciISAInterrupts.count)]
  }
  /// The interrupts of virtio devices on the MMIO transport, in order: as many there can be.
  package static let virtioInterrupts: [UInt32] = [5, 6, 7, 3, 12]
  /// The first GSI of those that stand for messages.
  package static let firstMessageInterrupt: UInt32 = 24
  /// The 8254's interrupt, counted as ISA and the 8259s do.
  package static let timerInterrupt: UInt32 = 0
  /// The IOAPIC's input that it is at; the others are at those of their own number.
  package static let timerInput: UInt32 = 2
  /// How many inputs the IOAPIC has.
  package static let ioapicInputs = 24
}
