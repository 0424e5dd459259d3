import Network

/// Feature bits of a network card (virtio 1.2, 5.1.3), and which of them go together.
enum NetFeature {
  static let checksum = VirtioFeatures.bit(0)
  static let guestChecksum = VirtioFeatures.bit(1)
  static let controlGuestOffloads = VirtioFeatures.bit(2)
  static let mtu = VirtioFeatures.bit(3)
  static let mac = VirtioFeatures.bit(5)
  static let guestTCP4 = VirtioFeatures.bit(7)
  static let guestTCP6 = VirtioFeatures.bit(8)
  static let guestECN = VirtioFeatures.bit(9)
  static let guestUDP = VirtioFeatures.bit(10)
  static let hostTCP4 = VirtioFeatures.bit(11)
  static let hostTCP6 = VirtioFeatures.bit(12)
  static let hostECN = VirtioFeatures.bit(13)
  static let hostUDP = VirtioFeatures.bit(14)
  static let mergeableBuffers = VirtioFeatures.bit(15)
  static let status = VirtioFeatures.bit(16)
  static let controlQueue = VirtioFeatures.bit(17)
  static let multiqueue = VirtioFeatures.bit(22)
  static let controlMAC = VirtioFeatures.bit(23)

  /// Each offload with the feature by which the host takes it and that by which a guest does.
  static let offloads: [(offload: NetworkOffloads, host: VirtioFeatures, guest: VirtioFeatures)] = [
    (.checksum, checksum, guestChecksum), (.tcp4, hostTCP4, guestTCP4),
    (.tcp6, hostTCP6, guestTCP6), (.congestion, hostECN, guestECN), (.udp, hostUDP, guestUDP),
  ]

  static func offered(
    _ offloads: NetworkOffloads, hasMTU: Bool, pairs: Int
  ) -> VirtioFeatures {
    var features: VirtioFeatures = [
      mac, status, mergeableBuffers, controlQueue, controlMAC,
    ]
    for entry in Self.offloads where offloads.contains(entry.offload) {
      features.formUnion([entry.host, entry.guest])
    }
    if !offloads.isEmpty { features.insert(controlGuestOffloads) }
    if hasMTU { features.insert(mtu) }
    if pairs > 1 { features.insert(multiqueue) }
    return features
  }

  /// Whether each feature has those that it requires (5.1.3.1).
  static func isConsistent(_ features: VirtioFeatures) -> Bool {
    func needs(_ feature: VirtioFeatures, _ others: VirtioFeatures) -> Bool {
      features.isDisjoint(with: feature) || !features.isDisjoint(with: others)
    }
    return needs([guestTCP4, guestTCP6, guestUDP], guestChecksum)
      && needs(guestECN, [guestTCP4, guestTCP6])
      && needs([hostTCP4, hostTCP6, hostUDP], checksum)
      && needs(hostECN, [hostTCP4, hostTCP6])
      && needs([multiqueue, controlMAC, controlGuestOffloads], controlQueue)
  }

  static func guestOffloads(_ features: VirtioFeatures) -> NetworkOffloads {
    offloads.reduce(into: []) { if features.contains($1.guest) { $0.insert($1.offload) } }
  }

  static func hostOffloads(_ features: VirtioFeatures) -> NetworkOffloads {
    offloads.reduce(into: []) { if features.contains($1.host) { $0.insert($1.offload) } }
  }
}
