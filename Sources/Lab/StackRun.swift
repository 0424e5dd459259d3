import Devices
import Host
import Memory
import Storage

/// The runs of the experiment `stack`.
struct StackRun {
  /// One request on its way down, with its address on each step.
  struct Ladder {
    let name: String
    let sector: Int
    /// The descriptor's, as the guest wrote it.
    let guestAddress: UInt64
    /// Where that is in this process.
    let hostAddress: UInt64
    /// Where it is in the back end's process, if that's another.
    let backEndAddress: UInt64?
    /// The overlay's cluster and the offset in it; nil for a disk without clusters.
    let cluster: (number: Int, offset: Int)?
    /// Which image has it, by its place in the chain, and where in that image's file.
    let depth: Int
    let fileOffset: Int
    let file: String
    /// The first word in the guest's memory, and in the file.
    let guestWord: UInt64
    let fileWord: UInt64

    var diskOffset: Int { sector * 512 }
  }

  /// What a guest finds on a virtual disk.
  struct Finding {
    let disk: String
    let device: String
    let identity: [UInt8]
    let checksum: UInt64
    /// Reading all of it.
    let sample: IOBench.Sample
  }

  let sector: Int
  let clusterSize: Int
  /// The same driver, other real disks.
  private(set) var disks: [Finding] = []
  /// The same real disk, other devices.
  private(set) var devices: [Finding] = []
  /// IDENTIFY DEVICE by real disk.
  private(set) var identities: [(disk: String, bytes: [UInt8])] = []
  private(set) var ladders: [Ladder] = []
  /// How the driver found the disk on the PCI bus.
  private(set) var search: [IOBench.Access] = []
  let whyNoDevice: String?
  let contents: UInt64

  init(_ program: String, sector: Int, clusterSize: Int) throws(LabError) {
    (self.sector, self.clusterSize) = (sector, clusterSize)
    let kit = try Probe.Kit("stack")
    let made = try StackDisks(program, clusterSize: clusterSize)
    whyNoDevice = made.whyNoDevice
    contents = checksum(made.contents)
    for disk in made.disks {
      let rig: StackRig
      if let store = disk.store {
        rig = try StackRig(.pci, kit, store)
        let ide = try StackRig(.ide, kit, store)
        identities.append((disk.name, try ide.identity()))
        if devices.isEmpty {
          for other in [ide, try StackRig(.mmio, kit, store)] {
            devices.append(try Self.find(other, disk.name, other.kind.rawValue))
          }
        }
      } else {
        rig = try StackRig(kit, socket: made.process.socket)
      }
      let finding = try Self.find(rig, disk.name, disk.store == nil ? "vhost-user" : "virtio-pci")
      disks.append(finding)
      // The first disk's, and the one that is another process's.
      if devices.count < 3 || disk.store == nil { devices.append(finding) }
      if search.isEmpty { search = rig.search }
      try climb(rig, disk, made)
    }
  }

  private static func find(
    _ rig: StackRig, _ disk: String, _ device: String
  ) throws(LabError) -> Finding {
    let identity = try rig.identity()
    let sample = try rig.read(0, StackDisks.sectors)
    return Finding(
      disk: disk, device: device, identity: identity,
      checksum: try rig.io.guestChecksum(StackDisks.sectors * 512), sample: sample)
  }

  // MARK: The ladder

  private mutating func climb(
    _ rig: StackRig, _ disk: StackDisks.Disk, _ made: StackDisks
  ) throws(LabError) {
    let hasClusters = disk.files.count > 1
    ladders.append(try ladder(rig, disk, made, sector, hasClusters ? "overlay" : disk.name))
    guard hasClusters else { return }
    // The cluster beside it is the other image's.
    let other = sector ^ (clusterSize / 512)
    ladders.append(try ladder(rig, disk, made, other, "overlay, other cluster"))
  }

  private func ladder(
    _ rig: StackRig, _ disk: StackDisks.Disk, _ made: StackDisks, _ sector: Int, _ name: String
  ) throws(LabError) -> Ladder {
    _ = try rig.read(sector, 1)
    // The second descriptor is the data's.
    let address = try rig.io.bench.words(at: StackRig.Place.descriptors + 16, 1)[0]
    guard let location = rig.io.bench.memory.location(of: GuestAddress(address)) else {
      throw .unexpected("the guest's buffer at \(hex(address)) is no memory")
    }
    let offset = sector * 512
    let (depth, fileOffset) =
      try disk.store.map { store throws(LabError) in
        try Self.place(of: offset, in: store)
      } ?? (0, offset)
    return Ladder(
      name: name, sector: sector, guestAddress: address, hostAddress: location.hostAddress,
      backEndAddress: disk.store == nil
        ? Self.address(address, in: made.process.child.identifier) : nil,
      cluster: disk.files.count > 1 ? (offset / clusterSize, offset % clusterSize) : nil,
      depth: depth, fileOffset: fileOffset, file: disk.files[depth],
      guestWord: try rig.io.bench.words(at: address, 1)[0],
      fileWord: try StackDisks.word(disk.files[depth], at: fileOffset))
  }

  /// Which image of a chain has the byte `offset` of the disk, and where in its file.
  private static func place(
    of offset: Int, in store: any BlockStore
  ) throws(LabError) -> (depth: Int, offset: Int) {
    var found: (Int, Int)?
    let failure = DiskMap.forEach(of: store) { extent in
      guard extent.start <= offset, UInt64(offset) - extent.start < extent.count,
        let start = extent.offset
      else { return }
      found = (extent.depth, Int(start) + offset - Int(extent.start))
    }
    guard let found else {
      throw .unexpected("no image has byte \(offset)\(failure.map { ": \($0)" } ?? "")")
    }
    return found
  }

  /// Where the guest's memory at `address` is in another process, by /proc/PID/maps.
  private static func address(_ address: UInt64, in process: Int32) -> UInt64? {
    for line in SplitRun.text("/proc/\(process)/maps")?.split(separator: "\n") ?? []
    where line.contains("/memfd:") {
      // start-end permissions offset device inode name
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
      guard ends.count == 2, fields.count > 2, let offset = UInt64(fields[2], radix: 16),
        address >= offset, address - offset < ends[1] &- ends[0]
      else { continue }
      return ends[0] + address - offset
    }
    return nil
  }
}

/// What a driver asks a PCI bus, in words.
struct PCISearch {
  /// A configuration register that was read or written.
  struct Step {
    let function: String
    let register: Int
    let isWrite: Bool
    let value: UInt32
    let meaning: String
  }

  private(set) var steps: [Step] = []
  /// How many functions were asked for that aren't there.
  private(set) var absent = 0
  /// The sizes of ranges, by register.
  private(set) var sizes: [Int: Int] = [:]
  private var asked: Set<Int> = []
  /// Where the next capability is, and where the last one was.
  private var capability = 0
  private var current = 0

  /// Takes the accesses apart: a write to port 0xCF8 chooses a register, 0xCFC is it.
  init(_ accesses: [IOBench.Access]) {
    var chosen: UInt64 = 0
    for access in accesses {
      if access.place == 0xCF8 { chosen = access.value }
      guard access.place == 0xCFC else { continue }
      let register = Int(chosen & 0xFC)
      let value = UInt32(truncatingIfNeeded: access.value)
      if register == 0 && value == .max {
        absent += 1
        continue
      }
      let device = hex(chosen >> 11 & 31, 2).dropFirst(2)
      steps.append(
        Step(
          function: "00:\(device).\(chosen >> 8 & 7)", register: register, isWrite: access.isWrite,
          value: value, meaning: meaning(register, access.isWrite, value)))
    }
  }

  private mutating func meaning(_ register: Int, _ isWrite: Bool, _ value: UInt32) -> String {
    let word = UInt64(value)
    switch register {
    case 0: return "vendor \(hex(word & 0xFFFF, 4)), device \(hex(word >> 16, 4))"
    case 4: return "on: answer to memory accesses, and use memory (bus master)"
    case 8: return "class \(hex(word >> 24, 2)), subclass \(hex(word >> 16 & 0xFF, 2))"
    case 0xC: return "header type \(word >> 16 & 0x7F): no bridge to another bus"
    case 0x10..<0x28: return range(register, isWrite, value)
    case 0x34:
      capability = Int(value & 0xFF)
      return "the first capability is at \(hex(word & 0xFF))"
    case capability where capability != 0:
      current = register
      return header(value)
    case current + 4: return "it's about range \(value & 7)"
    default: return "\(hex(word)) in that range"
    }
  }

  private mutating func range(_ register: Int, _ isWrite: Bool, _ value: UInt32) -> String {
    let number = (register - 0x10) / 4
    if isWrite && value == .max {
      asked.insert(register)
      return "range \(number): how large?"
    }
    if isWrite {
      return asked.contains(register)
        ? "range \(number) is put at \(hex(UInt64(value)))" : "and its upper half at 0"
    }
    guard asked.contains(register), sizes[register] == nil else {
      return "range \(number) is at \(hex(UInt64(value & ~15)))"
    }
    guard value != 0 else { return "there is no range \(number)" }
    let size = Int(~(value & ~15)) + 1
    sizes[register] = size
    return "\(hex(UInt64(size))) bytes of memory" + (value & 6 == 4 ? ", anywhere (64 bits)" : "")
  }

  private mutating func header(_ value: UInt32) -> String {
    let (id, next) = (value & 0xFF, Int(value >> 8 & 0xFF))
    defer { capability = next }
    let types = ["", "common configuration", "doorbells", "interrupt status", "device", "window"]
    let type = Int(value >> 24)
    let what =
      id == 0x11
      ? "MSI-X"
      : id == 9 && type < types.count ? "virtio's \(types[type])" : "ID \(hex(UInt64(id)))"
    return what + (next == 0 ? ", the last one" : ", the next is at \(hex(UInt64(next)))")
  }
}
