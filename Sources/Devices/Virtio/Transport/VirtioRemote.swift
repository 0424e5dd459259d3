import Host

/// Serves a device's queues somewhere else, such as in another process.
///
/// All of it is called by the threads of VCPUs and returns at once; what takes time is done by a
/// thread of its own, which then tells the `VirtioRemoteOwner`.
package protocol VirtioRemote: AnyObject, Sendable {
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
  /// Serves no queue from now on, and calls `still` once none is served.
  func pause(_ still: @escaping @Sendable () -> Void)
  /// Serves them again, where each was, or calls a pause off that has not come yet.
  func resume()
  /// Which request of queue `index` is taken next; in a pause.
  func position(ofQueue index: Int) -> UInt16
  /// Knows of no queue any more; in a pause.
  func reset()
  /// Ends for good; returns when nothing is called any more.
  func end()
}

/// The device's side of queues that are served somewhere else. May be called by any thread.
package protocol VirtioRemoteOwner: AnyObject, Sendable {
  /// Queue `index` is no longer served.
  func remoteDidStop(queue index: Int)
  /// Requests of queue `index` are done, for which there is no event of the guest's own.
  func remoteDidComplete(queue index: Int)
  /// It can't go on: the device needs a reset, and this is why.
  func remoteDidFail(_ reason: String)
}

/// A queue that is to be served: what the driver said of it, sound as far as the ring goes.
package struct RemoteQueueSetup: Sendable {
  /// How many descriptors it has.
  package let size: UInt16
  /// Where its parts are, all of them in RAM.
  package let addresses: VirtQueue.Addresses
  /// What driver and device agreed on.
  package let features: VirtioFeatures
  /// What the driver's doorbell raises.
  package let doorbell: Doorbell
  /// What interrupts the driver when raised; nil where that takes more than an event.
  package let interrupt: SharedEvent?
  /// Which request is the first to be taken.
  package let start: UInt16

  /// Takes all as they are; whoever calls has checked that the ring is in RAM.
  package init(
    size: UInt16, addresses: VirtQueue.Addresses, features: VirtioFeatures, doorbell: Doorbell,
    interrupt: SharedEvent?, start: UInt16 = 0
  ) {
    self.size = size
    self.addresses = addresses
    self.features = features
    self.doorbell = doorbell
    self.interrupt = interrupt
    self.start = start
  }
}
