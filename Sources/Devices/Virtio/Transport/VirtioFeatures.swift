/// Feature bits: 0 to 23 are each device's own, the others are common (virtio 1.2, chapter 6).
package struct VirtioFeatures: OptionSet, Sendable {
  /// Bit n is feature n.
  package let rawValue: UInt64
  /// Takes bits as they are.
  package init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The feature with a number.
  package static func bit(_ number: Int) -> VirtioFeatures { VirtioFeatures(rawValue: 1 << number) }

  /// VIRTIO_F_INDIRECT_DESC: requests may have tables of their own.
  package static let indirect = bit(28)
  /// VIRTIO_F_EVENT_IDX: both sides say from which index on they want to be told.
  package static let eventIndex = bit(29)
  /// VIRTIO_F_VERSION_1: not the legacy interface, of which there is none here.
  package static let version1 = bit(32)
  /// VIRTIO_F_RING_RESET: a single queue can be reset.
  package static let ringReset = bit(40)

  /// What all devices offer.
  package static let common: VirtioFeatures = [.indirect, .eventIndex, .version1, .ringReset]
}
