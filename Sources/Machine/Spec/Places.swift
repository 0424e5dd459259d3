import Devices

extension VMConfiguration {
  /// The same machine with a place for each device that says none: the next one that no other has or
  /// asks for, in the order of the devices. It is to be `completed()` and checked.
  package func placed() throws(SpecError) -> VMConfiguration {
    var whole = self
    var taken = Set(devices.compactMap(\.place))
    for (index, device) in devices.enumerated() where device.place == nil {
      let places = places(for: device)
      guard !places.isEmpty else { continue }
      guard let place = places.first(where: { !taken.contains($0) }) else {
        throw SpecError(
          "\(device.id) is one too many: there is room for \(places.count) on its bus",
          path: ["devices", "\(index)"])
      }
      whole.devices[index].place = place
      taken.insert(place)
    }
    return whole
  }

  /// All places that there are for `device`; none for one that is always at the same.
  package func places(for device: Device) -> [Place] {
    let bus: Disk.Bus
    switch device.kind {
    case .testDevice: return []
    case .disk(let disk): bus = disk.bus
    default: bus = .virtio
    }
    return switch (bus, virtioBus) {
    case (.ide, _): (0..<IDEController.mostDisks).map { .ide($0) }
    case (.mmio, _), (.virtio, .mmio): Layout.virtioInterrupts.indices.map { .mmio($0) }
    // Device 0 is the host bridge, 1 the chip set.
    case (.virtio, .pci): (2..<32).map { .pci(PCIAddress(device: $0)) }
    }
  }
}
