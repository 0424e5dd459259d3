/// An entry of a function's capability list (PCI 3.0, 6.7).
package struct PCICapability: Sendable {
  /// The capability ID.
  package let id: UInt8
  /// What follows ID and next pointer.
  package let body: [UInt8]
  /// Which of those bits a guest can write; none beyond its end.
  package let writable: [UInt8]
  /// Who answers instead of `body`, if anybody does, for registers that aren't plain: at offsets from
  /// the capability's start, of which the first two, ID and pointer, don't come here. It is called
  /// without any lock of the function's.
  package let registers: (any Device)?

  /// MSI-X, which a function makes itself.
  package static let msixID: UInt8 = 0x11
  /// Vendor-specific, as virtio has.
  package static let vendorSpecificID: UInt8 = 0x09

  /// A capability with these contents.
  package init(
    id: UInt8, body: [UInt8], writable: [UInt8] = [], registers: (any Device)? = nil
  ) {
    self.id = id
    self.body = body
    self.writable = writable
    self.registers = registers
  }
}
