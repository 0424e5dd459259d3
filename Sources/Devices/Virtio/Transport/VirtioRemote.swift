import Host

/// Serves a device's queues somewhere else, such as in another process.
///
/// All of it is called by the threads of VCPUs and returns at once; what takes time is done by a
/// thread of its own, which then tells the `VirtioRemoteOwner`.
public protocol VirtioRemote: AnyObject, Sendable {
  /// Called once, before anything else.
  func connect(to owner: any VirtioRemoteOwner)
  /// Serves queue `index` from now on.
  func start(queue index: Int, _ setup: RemoteQueueSetup)
  /// Serves queue `index` no longer, and says so by `remoteDidStop`. It is being served.
  func stop(queue index: Int)
  /// Uses `event` for the interrupts of queue `index` from now on; nil for `remoteDidComplete`.
  func setInterrupt(_ event: SharedEvent?, queue index: Int)
  /// Allows or forbids the use of guest memory. It is allowed in the beginning.
  func setMayUseMemory(_ mayUse: Bool)
  /// Ends for good; returns when nothing is called any more.
  func end()
}

/// The device's side of queues that are served somewhere else. May be called by any thread.
public protocol VirtioRemoteOwner: AnyObject, Sendable {
  /// Queue `index` is no longer served.
  func remoteDidStop(queue index: Int)
  /// Requests of queue `index` are done, for which there is no event of the guest's own.
  func remoteDidComplete(queue index: Int)
  /// It can't go on: the device needs a reset, and this is why.
  func remoteDidFail(_ reason: String)
}

/// A queue that is to be served: what the driver said of it, sound as far as the ring goes.
public struct RemoteQueueSetup: Sendable {
  /// How many descriptors it has.
  public let size: UInt16
  /// Where its parts are, all of them in RAM.
  public let addresses: VirtQueue.Addresses
  /// What driver and device agreed on.
  public let features: VirtioFeatures
  /// What the driver's doorbell raises.
  public let doorbell: Doorbell
  /// What interrupts the driver when raised; nil where that takes more than an event.
  public let interrupt: SharedEvent?

  /// Takes all as they are; whoever calls has checked that the ring is in RAM.
  public init(
    size: UInt16, addresses: VirtQueue.Addresses, features: VirtioFeatures, doorbell: Doorbell,
    interrupt: SharedEvent?
  ) {
    self.size = size
    self.addresses = addresses
    self.features = features
    self.doorbell = doorbell
    self.interrupt = interrupt
  }
}
