import Host

/// What a message-signalled interrupt writes, and where (PCI 3.0, 6.8).
package struct InterruptMessage: Hashable, Sendable {
  /// The address, which says which processors.
  package var address: UInt64
  /// The data, which says which vector.
  package var data: UInt32

  /// Takes both as they are.
  package init(address: UInt64, data: UInt32) {
    self.address = address
    self.data = data
  }
}

/// The way of one interrupt from an event to the processors (an irqfd and its GSI).
package protocol MessageRoute: AnyObject, Sendable {
  /// Makes each raise of the event send `message` from now on. What was raised while there was no
  /// message is sent at once. With nil raises only stay in the event, for it to remember.
  func set(_ message: InterruptMessage?)
}

/// Who has such ways to the processors.
package protocol MessageRouter: AnyObject, Sendable {
  /// Makes a way for `event`, which lasts as long as the machine. It has no message yet.
  func makeRoute(for event: SharedEvent) -> any MessageRoute
}

/// An event that several parties hold: a device, the machine, another process.
package final class SharedEvent: Sendable {
  /// The event.
  package let event: Event

  /// Makes one that isn't raised.
  package init() throws(Errno) { event = try Event() }

  /// Takes `event` over.
  package init(_ event: consuming Event) { self.event = event }
}
