/// An entry of a function's capability list (PCI 3.0, 6.7).
public struct PCICapability: Sendable {
  /// The capability ID.
  public let id: UInt8
  /// What follows ID and next pointer.
  public let body: [UInt8]
  /// Which of those bits a guest can write; none beyond its end.
  public let writable: [UInt8]
  /// Who answers instead of `body`, if anybody does, for registers that aren't plain: at offsets from
  /// the capability's start, of which the first two, ID and pointer, don't come here. It is called
  /// without any lock of the function's.
  public let registers: (any Device)?

  /// MSI-X, which a function makes itself.
  public static let msixID: UInt8 = 0x11
  /// Vendor-specific, as virtio has.
  public static let vendorSpecificID: UInt8 = 0x09

  /// A capability with these contents.
  public init(
    id: UInt8, body: [UInt8], writable: [UInt8] = [], registers: (any Device)? = nil
  ) {
    self.id = id
    self.body = body
    self.writable = writable
    self.registers = registers
  }
}
