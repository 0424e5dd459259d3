import Devices
import Host
import Network
import Storage

// Several machines that go on from a saved one: each has for its own what no two can have.

extension VMConfiguration {
  /// What keeps `count` machines of it from going on side by side, in words; nil if nothing does.
  package func unclonable(_ count: Int) -> String? {
    for console in consoles {
      if console.descriptor != nil { return "\(console.id): \(Self.openFile)" }
      if let path = console.path, count > 1 {
        return "\(console.id): only one machine can print to \(path)"
      }
    }
    for device in devices {
      switch device.kind {
      case .disk(let disk) where disk.descriptor != nil: return "\(device.id): \(Self.openFile)"
      case .net(let net) where net.descriptor != nil: return "\(device.id): \(Self.openFile)"
      case .vsock(let vsock) where vsock.descriptor != nil:
        return "\(device.id): \(Self.openFile)"
      case .net(let net) where net.tap != nil && count > 1:
        return "\(device.id): only one machine can have the interface \(net.tap ?? "")"
      default: break
      }
    }
    return unsavable
  }

  private static let openFile = "only one process has the open file that it is"

  /// The machine as the one of that number, from 1 on, whose files are at `places`: disks that are written
  /// have an image of their own, network cards another address, the vsock device another address and
  /// socket.
  package func clone(_ number: Int, at places: MachinePlaces) throws(Errno) -> VMConfiguration {
    var clone = self
    for index in devices.indices {
      switch devices[index].kind {
      case .disk(let disk) where disk.path != nil && !disk.isReadOnly:
        // By its place in the list: a name could be any path.
        clone.devices[index].disk.path = "\(places.state)/disk-\(index).qcow2"
        clone.devices[index].disk.format = .qcow2
      case .net: clone.devices[index].net.mac = try .random()
      case .vsock(let vsock):
        let cids = VirtioVsock.possibleCIDs
        let cid = vsock.cid &+ UInt64(number)
        clone.devices[index].vsock.cid =
          cids.contains(cid) ? cid : cids.lowerBound &+ UInt64(number)
        if vsock.socket != nil {
          clone.devices[index].vsock.socket = "\(places.runtime)/vsock.sock"
        }
      default: break
      }
    }
    return clone
  }
}

extension SavedMachine {
  fileprivate func clone(
    _ clone: VMConfiguration, of spec: VMConfiguration
  ) throws(CloneError) -> SavedMachine {
    var stamps: [SavedDisk]
    do throws(RestoreError) { stamps = try savedDisks() } catch { throw .saved(error) }
    for (old, new) in zip(spec.devices, clone.devices) {
      guard let base = old.disk.path, let path = new.disk.path, base != path else { continue }
      do throws(DiskError) {
        // Each file is before what it is based on.
        stamps.insert(try Self.makeOverlay(path, on: base, old), at: 0)
      } catch { throw .disk(error) }
    }
    return replacing([
      (Name.spec, Array(clone.json.text.utf8)), (Name.disks, SavedDisk.bytes(of: stamps)),
    ])
  }

  private static func makeOverlay(
    _ path: String, on base: String, _ device: VMConfiguration.Device
  ) throws(DiskError) -> SavedDisk {
    var image = DiskImage.NewImage()
    image.base = base
    image.baseFormat = device.disk.format
    // What a machine that didn't start has left.
    image.replaces = true
    try DiskImage.create(path, image)
    return SavedDisk(id: device.id, stamp: try DiskStamp(ofImage: path))
  }

  private func replacing(_ parts: [(name: String, bytes: [UInt8])]) -> SavedMachine {
    SavedMachine(
      sections: sections.map { section in
        guard let part = parts.first(where: { $0.name == section.name }) else { return section }
        return Section(name: section.name, version: section.version, bytes: part.bytes)
      })
  }
}

extension SavedFolder.Opened {
  /// The same as the machine of `clone`, which was made of its `spec`. Its disks' images are made, empty,
  /// on those that were saved.
  package func clone(
    _ clone: VMConfiguration, of spec: VMConfiguration
  ) throws(CloneError) -> SavedFolder.Opened {
    .init(path: path, machine: try machine.clone(clone, of: spec), memory: memory)
  }
}

/// Why there is no machine beside others.
package enum CloneError: Error {
  /// The saved machine isn't good.
  case saved(RestoreError)
  /// A disk can't have an image on it.
  case disk(DiskError)
}
