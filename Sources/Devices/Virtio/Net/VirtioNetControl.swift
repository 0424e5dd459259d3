import Network

/// What a driver asks of a network card by the control queue (virtio 1.2, 5.1.6.5).
struct VirtioNetControl {
  private enum Command {
    static let setAddress: UInt16 = 0x0101  // VIRTIO_NET_CTRL_MAC, ADDR_SET
    static let setPairs: UInt16 = 0x0400  // VIRTIO_NET_CTRL_MQ, VQ_PAIRS_SET
    static let setOffloads: UInt16 = 0x0500  // VIRTIO_NET_CTRL_GUEST_OFFLOADS, SET
  }

  private enum Status: UInt8 {
    case ok = 0
    case error = 1
  }

  let features: VirtioFeatures

  /// Does one command, whose status is one byte, and returns what it was.
  func perform(
    _ chain: DescriptorChain, queue: Int, on card: VirtioNet
  ) throws(RingFault) -> DeviceRequest {
    guard chain.readableCount >= 2 else {
      throw RingFault(queue: queue, .request("has less than a command's two bytes"))
    }
    guard let status = chain.writable.first else {
      throw RingFault(queue: queue, .request("has no byte for its status"))
    }
    let isDone = run(chain, card)
    status.store((isDone ? Status.ok : .error).rawValue, 0)
    var request = DeviceRequest("command")
    if !isDone { request.result = .failed }
    return request
  }

  private func run(_ chain: DescriptorChain, _ card: VirtioNet) -> Bool {
    let command = UInt16(chain.load(0, as: UInt8.self)) << 8 | UInt16(chain.load(1, as: UInt8.self))
    let count = chain.readableCount - 2
    switch command {
    case Command.setAddress where features.contains(NetFeature.controlMAC) && count == 6:
      guard let mac = MACAddress((2..<8).map { chain.load($0, as: UInt8.self) }) else {
        return false
      }
      card.set(mac: mac)
      return true
    case Command.setPairs where features.contains(NetFeature.multiqueue) && count == 2:
      return card.set(activePairs: Int(chain.load(2, as: UInt16.self)))
    case Command.setOffloads
    where features.contains(NetFeature.controlGuestOffloads) && count == 8:
      // Those that were agreed on can be turned off and on again (5.1.6.5.6).
      let wanted = VirtioFeatures(rawValue: chain.load(2, as: UInt64.self))
      let possible = NetFeature.offloads.reduce(into: VirtioFeatures()) { $0.formUnion($1.guest) }
      guard wanted.isSubset(of: possible.intersection(features)), NetFeature.isConsistent(wanted)
      else { return false }
      card.set(guestOffloads: NetFeature.guestOffloads(wanted), insteadOf: features)
      return true
    default: return false
    }
  }
}
