/// What a function is (PCI 3.0, 6.2.1).
public struct PCIIdentity: Hashable, Sendable {
  /// Vendor ID.
  public var vendor: UInt16
  /// Device ID.
  public var device: UInt16
  /// Revision ID.
  public var revision: UInt8
  /// Base class, subclass and programming interface.
  public var kind: PCIClass
  /// Subsystem vendor ID; 0 for none.
  public var subsystemVendor: UInt16
  /// Subsystem ID.
  public var subsystem: UInt16

  /// Takes all as they are.
  public init(
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
public struct PCIClass: Hashable, Sendable {
  /// Base class, such as 1 for mass storage.
  public var base: UInt8
  /// Subclass.
  public var sub: UInt8
  /// Programming interface.
  public var interface: UInt8

  /// Takes the three as they are.
  public init(_ base: UInt8, _ sub: UInt8, _ interface: UInt8 = 0) {
    self.base = base
    self.sub = sub
    self.interface = interface
  }

  /// Mass storage: SCSI, which virtio-blk says it is.
  public static let scsi = PCIClass(0x01, 0x00)
  /// Mass storage: IDE; the programming interface says which channels are at ISA's ports.
  public static func ide(interface: UInt8) -> PCIClass { PCIClass(0x01, 0x01, interface) }
  /// Network: Ethernet.
  public static let ethernet = PCIClass(0x02, 0x00)
  /// A host bridge.
  public static let hostBridge = PCIClass(0x06, 0x00)
  /// An ISA bridge.
  public static let isaBridge = PCIClass(0x06, 0x01)
  /// Simple communication: other.
  public static let communication = PCIClass(0x07, 0x80)
  /// Fits in none of the classes.
  public static let other = PCIClass(0xFF, 0x00)

  /// The class in words, for tables.
  public var name: StaticString {
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
