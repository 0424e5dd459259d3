/// A base address register's range: what a function answers to in the port or memory space
/// (PCI 3.0, 6.2.5.1).
package struct PCIBAR: Sendable {
  /// Which space it is in and how many bits its address has.
  package enum Kind: Sendable {
    /// Ports.
    case port
    /// Memory below 4 GiB.
    case memory32
    /// Memory anywhere; takes two registers, this one and the next.
    case memory64
  }

  /// The number of its register, 0 to 5; to 4 for `memory64`.
  package let index: Int
  /// Which space it is in.
  package let kind: Kind
  /// How many ports or bytes: a power of two from 4 for ports (to 256) or 16 for memory.
  package let size: UInt64
  /// Whether reads have no side effects and writes may be merged.
  package let isPrefetchable: Bool
  /// Who answers inside, at offsets from the range's start.
  package let device: any Device

  /// A range of `size` ports or bytes that `device` answers in.
  package init(
    _ index: Int, _ kind: Kind, size: UInt64, isPrefetchable: Bool = false, _ device: any Device
  ) {
    let sizes: ClosedRange<UInt64> =
      kind == .port ? 4...256 : 16...(kind == .memory32 ? 1 << 31 : 1 << 62)
    precondition((0..<(kind == .memory64 ? 5 : 6)).contains(index), "no such register")
    precondition(sizes.contains(size) && size & (size - 1) == 0, "an impossible size")
    self.index = index
    self.kind = kind
    self.size = size
    self.isPrefetchable = isPrefetchable
    self.device = device
  }

  /// The register's low bits, which are read-only.
  var flags: UInt32 {
    switch kind {
    case .port: 0b01
    case .memory32: isPrefetchable ? 0b1000 : 0
    case .memory64: isPrefetchable ? 0b1100 : 0b0100
    }
  }
}
