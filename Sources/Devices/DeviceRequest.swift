/// One request of a device's, as statistics and traces tell it.
package struct DeviceRequest: Sendable {
  /// Which way its data went.
  package enum Flow: Sendable {
    /// The guest read it.
    case toGuest
    /// The guest wrote it.
    case fromGuest
    /// There was none.
    case none
  }

  /// What became of it.
  package enum Result: String, Sendable {
    /// It was done.
    case ok
    /// It was not.
    case failed
    /// The device doesn't know it.
    case unsupported
    /// A frame that went nowhere.
    case dropped
  }

  /// What was asked for, in a word or two.
  package var operation: StaticString
  /// Which way its data went.
  package var flow = Flow.none
  /// Where on the disk, in sectors of 512 bytes; nil for what isn't on a disk.
  package var sector: UInt64?
  /// How much: data, or the memory or part of the disk that it is about.
  package var bytes: UInt64 = 0
  /// What became of it.
  package var result = Result.ok

  /// A request that went well.
  package init(
    _ operation: StaticString, _ flow: Flow = .none, sector: UInt64? = nil, bytes: UInt64 = 0
  ) {
    self.operation = operation
    self.flow = flow
    self.sector = sector
    self.bytes = bytes
  }
}

/// How a device interrupted its driver.
package enum DeviceInterrupt: Sendable {
  /// By the MSI-X vector of this number.
  case message(Int)
  /// By its pin or line.
  case line
  /// Not at all, such as by a vector that isn't there.
  case none
}

/// Hears what a ring, a drive or a device does. Called by the thread that does it.
package protocol RequestObserver: AnyObject, Sendable {
  /// A request is done; times are those of `Clock.monotonicNanoseconds`. The requests of one ring
  /// follow each other.
  func didFinish(_ request: DeviceRequest, from start: UInt64, to end: UInt64)
  /// A doorbell woke the thread that serves the ring.
  func wasRung()
  /// The driver was interrupted.
  func didInterrupt(_ interrupt: DeviceInterrupt)
}

/// What is to be seen of devices: their requests' times and, if somebody listens, all they do.
package struct DeviceObservation: Sendable {
  /// Makes who hears of what is called by this label: a ring, a drive or a device.
  package var makeObserver: (@Sendable (String) -> any RequestObserver)?

  /// Times alone, or all that `makeObserver`'s want to hear.
  package init(makeObserver: (@Sendable (String) -> any RequestObserver)? = nil) {
    self.makeObserver = makeObserver
  }
}
