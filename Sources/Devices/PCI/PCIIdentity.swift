/// What a function is (PCI 3.0, 6.2.1).
package struct PCIIdentity: Hashable, Sendable {
  /// Vendor ID.
  package var vendor: UInt16
  /// Device ID.
  package var device: UInt16
  /// Revision ID.
  package var revision: UInt8
  /// Base class, subclass and programming interface.
  package var kind: PCIClass
  /// Subsystem vendor ID; 0 for none.
  package var subsystemVendor: UInt16
  /// Subsystem ID.
  package var subsystem: UInt16

  /// Takes all as they are.
  package init(
    vendor: UInt16, device: UInt16, revision: UInt8 = 0, kind: PCIClass,
    subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0
  ) {
    self.vendor = vendor
    self.device = device
    self.revision = revision
    self.kind = kind
    self.subsystemVendor = subsystemVendor
    self.subsystem = subsystem
  }
}

/// A class code (PCI Code and ID Assignment 1.11, 1).
package struct PCIClass: Hashable, Sendable {
  /// Base class, such as 1 for mass storage.
  package var base: UInt8
  /// Subclass.
  package var sub: UInt8
  /// Programming interface.
  package var interface: UInt8

  /// Takes the three as they are.
  package init(_ base: UInt8, _ sub: UInt8, _ interface: UInt8 = 0) {
    self.base = base
    self.sub = sub
    self.interface = interface
  }

  /// Mass storage: SCSI, which virtio-blk says it is.
  package static let scsi = PCIClass(0x01, 0x00)
  /// Mass storage: IDE; the programming interface says which channels are at ISA's ports.
  package static func ide(interface: UInt8) -> PCIClass { PCIClass(0x01, 0x01, interface) }
  /// Network: Ethernet.
  package static let ethernet = PCIClass(0x02, 0x00)
  /// A host bridge.
  package static let hostBridge = PCIClass(0x06, 0x00)
  /// An ISA bridge.
  package static let isaBridge = PCIClass(0x06, 0x01)
  /// Simple communication: other.
  package static let communication = PCIClass(0x07, 0x80)
  /// Fits in none of the classes.
  package static let other = PCIClass(0xFF, 0x00)

  /// The class in words, for tables.
  package var name: StaticString {
    switch (base, sub) {
    case (0x01, 0x00): "SCSI storage"
    case (0x01, 0x01): "IDE storage"
    case (0x01, 0x08): "NVMe storage"
    case (0x01, _): "storage"
    case (0x02, 0x00): "Ethernet"
    case (0x02, _): "network"
    case (0x03, _): "display"
    case (0x05, _): "memory"
    case (0x06, 0x00): "host bridge"
    case (0x06, 0x01): "ISA bridge"
    case (0x06, _): "bridge"
    case (0x07, _): "communication"
    case (0x08, _): "system"
    case (0x0C, _): "serial bus"
    case (0xFF, _): "other"
    default: "unknown"
    }
  }
}
