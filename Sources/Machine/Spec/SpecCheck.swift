import Devices
import Memory

/// What is wrong with a spec: an unknown key, a value that makes no sense, what can't go together.
package struct SpecError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Where in the text it was read from; nil if it wasn't read.
  package var position: JSON.Position?
  /// Where in the value: names of keys, and numbers in lists.
  package var path: [String] = []
  /// What is wrong, and what would be right.
  package var message: String

  package init(_ message: String, at position: JSON.Position? = nil, path: [String] = []) {
    self.message = message
    self.position = position
    self.path = path
  }

  /// Line and column, if there are any, and what is wrong.
  package var description: String { (position.map { "\($0): " } ?? "") + message }
}

extension VMConfiguration {
  /// Refuses what no machine can be. It is to be `completed()`.
  package func check() throws(SpecError) {
    try checkSizes()
    try checkLimits()
    guard consoles.count <= 1 else {
      throw SpecError("there is one console at most", path: ["consoles", "1"])
    }
    if let console = consoles.first {
      let places = [
        console.isStandard, console.isTerminal, console.path != nil, console.descriptor != nil,
      ]
      guard places.count(where: \.self) <= 1 else {
        throw SpecError(
          "a console has one place: stdio, pty, path or fd", path: ["consoles", "0", "backend"])
      }
      guard console.isTerminal || !console.waits else {
        throw SpecError("only a pty can wait", path: ["consoles", "0", "backend", "wait"])
      }
    }
    guard image == nil || firmware == nil else {
      throw SpecError(
        "firmware starts from a disk, not from an image: give only one of both", path: ["firmware"])
    }
    try checkIDs()
    let descriptors = descriptors
    guard Set(descriptors).count == descriptors.count else {
      throw SpecError("an open file is for one device, not for several", path: ["devices"])
    }
    for (index, device) in devices.enumerated() { try check(device, ["devices", "\(index)"]) }
  }

  private func checkSizes() throws(SpecError) {
    guard memorySize >= GuestMemory.pageSize, memorySize <= GuestMemory.largestSize,
      memorySize % GuestMemory.pageSize == 0
    else {
      throw SpecError(
        "memory of \(memorySize) bytes is impossible: give 4K to \(GuestMemory.largestSize >> 40)T, "
          + "in multiples of 4K", path: ["memory"])
    }
    guard vcpuCount >= 1 else {
      throw SpecError("a machine needs at least 1 VCPU, not \(vcpuCount)", path: ["cpus"])
    }
  }

  private func checkIDs() throws(SpecError) {
    guard !devices.isEmpty else { return }
    var ids = Dictionary(consoles.map { ($0.id, "the console") }) { first, _ in first }
    var places: [Place: String] = [:]
    var singles: Set<String> = []
    for (index, device) in devices.enumerated() {
      let path = ["devices", "\(index)"]
      if let other = ids.updateValue("device \(index)", forKey: device.id) {
        throw SpecError("'\(device.id)' is the id of \(other) already", path: path + ["id"])
      }
      if device.kind.isSingle, !singles.insert(device.kind.name).inserted {
        throw SpecError(
          "\(device.id): a machine has no more than one \(device.kind.name)", path: path)
      }
      if let place = device.place, let other = places.updateValue(device.id, forKey: place) {
        throw SpecError(
          "\(device.id): \(other) is at that place already", path: path + ["place"])
      }
    }
    let drives = devices.count { $0.disk.bus == .ide }
    guard drives <= IDEController.mostDisks else {
      throw SpecError(
        "\(drives) IDE disks are too many: there are \(IDEController.mostDisks) places, two on each "
          + "channel; put the others on virtio", path: ["devices"])
    }
  }

  private func check(_ device: Device, _ path: [String]) throws(SpecError) {
    func refuse(_ message: String, _ key: String) -> SpecError {
      SpecError("\(device.id): \(message)", path: path + [key])
    }
    try checkPlace(device, path)
    switch device.kind {
    case .disk(let disk):
      guard
        [disk.path != nil, disk.descriptor != nil, disk.socket != nil].count(where: \.self) <= 1
      else { throw refuse("a disk has one of path, fd and socket", "backend") }
      guard disk.socket != nil else { break }
      guard disk.bus != .ide else {
        throw refuse(
          "a disk of another process (vhost-user) is virtio's alone, not IDE's", "bus")
      }
      guard disk.format == nil, !disk.isReadOnly, !disk.isSnapshot, disk.serial.isEmpty else {
        throw refuse(
          "format, readonly, snapshot and serial are the other process's to say", "backend")
      }
    case .net(let net):
      guard [net.isUser, net.tap != nil, net.descriptor != nil].count(where: \.self) <= 1 else {
        throw refuse("a network card has one end: user, tap or fd", "backend")
      }
      guard net.queueCount == 1 || !net.isUser && net.descriptor == nil else {
        throw refuse("several queues are for tap alone", "backend")
      }
    case .vsock(let vsock):
      guard vsock.socket == nil || vsock.descriptor == nil else {
        throw refuse("programs connect at a socket or by fd, not both", "backend")
      }
      guard VirtioVsock.possibleCIDs.contains(vsock.cid) else {
        throw refuse(
          "a guest can't have the vsock address \(vsock.cid): give 3 to 4294967294", "cid")
      }
    case .balloon(let balloon):
      guard balloon.target <= memorySize else {
        throw refuse(
          "a balloon of \(ByteCount.text(balloon.target)) is more than the memory of "
            + ByteCount.text(memorySize), "target")
      }
    default: break
    }
  }

  private func checkPlace(_ device: Device, _ path: [String]) throws(SpecError) {
    guard let place = device.place else { return }
    var places = places(for: device)
    // The controller's drives are taken in order.
    if device.disk.bus == .ide {
      places = Array(places.prefix(devices.count { $0.disk.bus == .ide }))
    }
    guard places.contains(place) else {
      let words = places.first.map { "\($0) to \(places.last ?? $0)" } ?? "none"
      throw SpecError(
        "\(device.id): \(place) is no place for it: there are \(words)", path: path + ["place"])
    }
  }
}
