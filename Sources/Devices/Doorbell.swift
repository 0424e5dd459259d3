import Host

/// A place that a guest can write to.
package enum BusAddress: Hashable, Sendable {
  /// A port.
  case port(UInt16)
  /// A guest-physical address.
  case memory(UInt64)
}

/// Writes of a guest's that need no answer, only somebody who looks: each raises an event.
package final class Doorbell: Sendable {
  /// What a write raises. Other processes may wait for it by its descriptor.
  package let event: Event
  /// How wide a write is, in bytes: 1, 2, 4 or 8; 0 for any width.
  package let width: Int
  /// What must be written; nil for anything.
  package let value: UInt64?

  /// A doorbell that nobody has rung, for writes of `width` bytes, and of that `value` alone if there
  /// is one, which takes a width other than 0.
  package init(width: Int, value: UInt64? = nil) throws(Errno) {
    precondition([0, 1, 2, 4, 8].contains(width) && (value == nil || width > 0))
    event = try Event()
    self.width = width
    self.value = value
  }
}

/// Who can let a guest's writes raise an event instead of reaching the device (`KVM_IOEVENTFD`).
///
/// Nothing depends on it but speed: a device takes the same write where the host can't, or where
/// doorbells are in each other's way.
package protocol DoorbellHost: AnyObject, Sendable {
  /// Lets writes at `place` ring `doorbell`. Returns whether they do.
  @discardableResult
  func connect(_ doorbell: Doorbell, at place: BusAddress) -> Bool

  /// Lets them reach the device at `place` again. Harmless for a doorbell that isn't connected there.
  func disconnect(_ doorbell: Doorbell, at place: BusAddress)
}
