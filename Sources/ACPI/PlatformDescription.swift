/// What firmware tells a kernel about the machine: the one source of the ACPI and MP tables.
package struct PlatformDescription: Sendable {
  /// The local APIC ID of each processor; the first is the one that boots. Its place in the array is
  /// the processor's UID.
  package var processors: [UInt32]
  /// What CPUID leaf 1 says of the processors, for the MP table.
  package var processorIdentity = ProcessorIdentity()
  /// Where every processor has its local APIC.
  package var localAPIC: UInt32
  /// The I/O APIC.
  package var ioapic: IOAPIC
  /// ISA interrupts that are otherwise than edge-triggered, active high and on the I/O APIC's input
  /// of their own number.
  package var overrides: [InterruptOverride] = []
  /// The registers by which a kernel switches the power off and tells the time.
  package var powerManagement: PowerManagement
  /// The register that resets the machine.
  package var reset: Reset
  /// The serial ports, COM1 first.
  package var serialPorts: [SerialPort] = []
  /// The first port of the real-time clock.
  package var realTimeClock: UInt16
  /// Virtio devices on the MMIO transport.
  package var virtioDevices: [VirtioDevice] = []
  /// GPE0_BLK, if there is one: 4 ports for 16 general-purpose events.
  package var generalPurposeEvents: UInt16?
  /// The generation ID, if there is one.
  package var generation: Generation?
  /// The PCI bus, if there is one.
  package var pci: PCI?

  /// A machine with these parts and no serial port.
  package init(
    processors: [UInt32], localAPIC: UInt32, ioapic: IOAPIC, powerManagement: PowerManagement,
    reset: Reset, realTimeClock: UInt16
  ) {
    self.processors = processors
    self.localAPIC = localAPIC
    self.ioapic = ioapic
    self.powerManagement = powerManagement
    self.reset = reset
    self.realTimeClock = realTimeClock
  }

  /// Family, model and features, as CPUID leaf 1 has them in EAX and EDX.
  package struct ProcessorIdentity: Sendable {
    /// EAX: stepping, model and family.
    package var signature: UInt32
    /// EDX: the features that every processor with an APIC has.
    package var features: UInt32

    /// Takes both as they are; 0 where nothing is known.
    package init(signature: UInt32 = 0, features: UInt32 = 0) {
      self.signature = signature
      self.features = features
    }
  }

  /// An I/O APIC.
  package struct IOAPIC: Sendable {
    /// What its ID register holds.
    package var id: UInt8
    /// Where its registers are.
    package var address: UInt32
    /// The global system interrupt of its first input.
    package var interruptBase: UInt32

    /// Takes the three as they are.
    package init(id: UInt8, address: UInt32, interruptBase: UInt32) {
      self.id = id
      self.address = address
      self.interruptBase = interruptBase
    }
  }

  /// How an ISA interrupt differs from the bus's rule.
  package struct InterruptOverride: Sendable {
    /// The ISA interrupt.
    package var interrupt: UInt8
    /// The global system interrupt that it is.
    package var globalInterrupt: UInt32
    /// Whether it is level-triggered instead of edge-triggered. Active high it is in any case.
    package var isLevelTriggered: Bool

    /// Takes the three as they are.
    package init(interrupt: UInt8, globalInterrupt: UInt32, isLevelTriggered: Bool) {
      self.interrupt = interrupt
      self.globalInterrupt = globalInterrupt
      self.isLevelTriggered = isLevelTriggered
    }
  }

  /// The fixed hardware of ACPI (ACPI 6.5, 4.8).
  package struct PowerManagement: Sendable {
    /// PM1a_EVT_BLK: 4 ports, status and enable.
    package var event: UInt16
    /// PM1a_CNT_BLK: 2 ports.
    package var control: UInt16
    /// PM_TMR_BLK: 4 ports, of which the timer counts in 24 bits.
    package var timer: UInt16
    /// The interrupt of all this, the SCI.
    package var interrupt: UInt16
    /// What SLP_TYP must be for the power to go off.
    package var powerOffType: UInt8

    /// Takes all as they are.
    package init(
      event: UInt16, control: UInt16, timer: UInt16, interrupt: UInt16, powerOffType: UInt8
    ) {
      self.event = event
      self.control = control
      self.timer = timer
      self.interrupt = interrupt
      self.powerOffType = powerOffType
    }
  }

  /// The Virtual Machine Generation ID.
  package struct Generation: Sendable {
    /// Where its 16 bytes are, a multiple of 8.
    package var address: UInt64
    /// The general-purpose event that tells of a new one, 0 to 15.
    package var event: UInt8

    /// Takes both as they are.
    package init(address: UInt64, event: UInt8) {
      self.address = address
      self.event = event
    }
  }

  /// A PCI host bridge with bus 0 alone.
  package struct PCI: Sendable {
    /// Where its configuration space is in memory (ECAM): 1 MiB.
    package var configuration: UInt64
    /// The ports of the configuration mechanism, 8 of them.
    package var configurationPorts: UInt16
    /// Ports for functions.
    package var ports: ClosedRange<UInt16>
    /// Memory below 4 GiB for functions.
    package var memory32: ClosedRange<UInt32>
    /// Memory above 4 GiB for functions, if there is any.
    package var memory64: ClosedRange<UInt64>?
    /// The global system interrupt of each pin, INTA# to INTD#, of devices 0 to 31.
    package var interrupts: [[UInt32]]

    /// Takes all as they are.
    package init(
      configuration: UInt64, configurationPorts: UInt16, ports: ClosedRange<UInt16>,
      memory32: ClosedRange<UInt32>, memory64: ClosedRange<UInt64>?, interrupts: [[UInt32]]
    ) {
      self.configuration = configuration
      self.configurationPorts = configurationPorts
      self.ports = ports
      self.memory32 = memory32
      self.memory64 = memory64
      self.interrupts = interrupts
    }
  }

  /// How the machine is reset: `value` goes to `port`.
  package struct Reset: Sendable {
    /// A port of one byte.
    package var port: UInt16
    /// What resets the machine.
    package var value: UInt8

    /// Takes both as they are.
    package init(port: UInt16, value: UInt8) {
      self.port = port
      self.value = value
    }
  }

  /// A virtio device on the MMIO transport.
  package struct VirtioDevice: Sendable {
    /// Where its registers are.
    package var start: UInt32
    /// How many bytes they have.
    package var count: UInt32
    /// Its global interrupt, level-triggered and active high.
    package var interrupt: UInt32

    /// Takes the three as they are.
    package init(start: UInt32, count: UInt32, interrupt: UInt32) {
      self.start = start
      self.count = count
      self.interrupt = interrupt
    }
  }

  /// A 16550A at 8 ports.
  package struct SerialPort: Sendable {
    /// The first port.
    package var port: UInt16
    /// Its ISA interrupt, 0 to 15.
    package var interrupt: UInt8

    /// Takes both as they are.
    package init(port: UInt16, interrupt: UInt8) {
      self.port = port
      self.interrupt = interrupt
    }
  }
}
