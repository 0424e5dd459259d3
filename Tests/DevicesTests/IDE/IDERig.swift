import Devices
import Glibc
import Host
import Memory
import Storage
import TestSupport
import Testing

/// Lets other threads run while one waits for them.
func yieldProcessor() { sched_yield() }

/// A controller with disks in memory, driven through its ports as a guest does.
final class IDERig {
  let stores: [MemoryStore]
  let lines = (primary: RecordingLine(), secondary: RecordingLine())
  let memory: GuestMemory
  let controller: IDEController
  let ports: Bus

  // The primary channel's registers.
  static let data: UInt64 = 0x1F0
  static let error: UInt64 = 0x1F1
  static let count: UInt64 = 0x1F2
  static let low: UInt64 = 0x1F3
  static let mid: UInt64 = 0x1F4
  static let high: UInt64 = 0x1F5
  static let device: UInt64 = 0x1F6
  static let command: UInt64 = 0x1F7
  static let control: UInt64 = 0x3F6
  static let busMaster: UInt64 = 0xC000

  init(
    _ stores: [MemoryStore], serials: [String] = [], mayMaster: Bool = true,
    observation: DeviceObservation? = nil
  ) throws {
    self.stores = stores
    memory = try GuestMemory(
      ramSize: 1 << 20, roms: [(0xFFFF_0000, [UInt8](repeating: 0xEE, count: 4096))])
    let disks = stores.enumerated().map {
      IDEController.Disk($1, serial: $0 < serials.count ? serials[$0] : "")
    }
    controller = try IDEController(
      disks, lines: (lines.primary, lines.secondary), memory: memory,
      observation: observation, mayMaster: { mayMaster })
    var ports = Bus()
    for (index, block) in controller.commandBlocks.enumerated() {
      try ports.add(block, at: index == 0 ? 0x1F0 : 0x170, count: 8)
    }
    for (index, block) in controller.controlBlocks.enumerated() {
      try ports.add(block, at: index == 0 ? 0x3F6 : 0x376, count: 1)
    }
    try ports.add(controller.busMaster, at: Self.busMaster, count: 16)
    self.ports = ports
  }

  /// With one disk of so many sectors.
  convenience init(sectors: Int, isReadOnly: Bool = false) throws {
    try self.init([MemoryStore(sectors: sectors, isReadOnly: isReadOnly)])
  }

  deinit {
    for store in stores { store.hold(false) }
    controller.stop()
  }

  var store: MemoryStore { stores[0] }
  var line: RecordingLine { lines.primary }

  func read(_ port: UInt64, _ width: Int = 1) -> UInt64 { ports.read(port, width: width) }
  func write(_ port: UInt64, _ value: UInt64, _ width: Int = 1) {
    ports.write(port, width: width, value: value)
  }

  var alternateStatus: UInt64 { read(Self.control) }

  /// Waits until BSY is clear, and returns Status, which takes the interrupt back.
  @discardableResult
  func settle() -> UInt64 {
    let deadline = Deadline(seconds: 60).nanoseconds
    while alternateStatus & 0x80 != 0 {
      if Clock.monotonicNanoseconds > deadline {
        Issue.record("BSY stays set")
        break
      }
      yieldProcessor()
    }
    return read(Self.command)
  }

  /// Writes the parameters of a command in LBA, 48 bits of it for those with EXT, and its code.
  func start(
    _ code: UInt64, lba: UInt64 = 0, count: UInt64 = 1, features: UInt64 = 0, isExt: Bool = false,
    drive: UInt64 = 0
  ) {
    write(Self.device, 0xE0 | drive << 4 | (isExt ? 0 : lba >> 24 & 0xF))
    if isExt {
      write(Self.error, features >> 8)
      write(Self.count, count >> 8 & 0xFF)
      write(Self.low, lba >> 24 & 0xFF)
      write(Self.mid, lba >> 32 & 0xFF)
      write(Self.high, lba >> 40 & 0xFF)
    }
    write(Self.error, features & 0xFF)
    write(Self.count, count & 0xFF)
    write(Self.low, lba & 0xFF)
    write(Self.mid, lba >> 8 & 0xFF)
    write(Self.high, lba >> 16 & 0xFF)
    write(Self.command, code)
  }

  /// The same, to its end or its first block; returns Status.
  @discardableResult
  func run(
    _ code: UInt64, lba: UInt64 = 0, count: UInt64 = 1, features: UInt64 = 0, isExt: Bool = false,
    drive: UInt64 = 0
  ) -> UInt64 {
    start(code, lba: lba, count: count, features: features, isExt: isExt, drive: drive)
    return settle()
  }

  /// The same; whether it ends with an error.
  func fails(
    _ code: UInt64, lba: UInt64 = 0, count: UInt64 = 1, features: UInt64 = 0, isExt: Bool = false,
    drive: UInt64 = 0
  ) -> Bool {
    let status = run(
      code, lba: lba, count: count, features: features, isExt: isExt, drive: drive)
    return status & IDEStatus.error != 0
  }

  /// The registers that tell what a drive is: Error, Sector Count, and the address.
  var signature: [UInt64] {
    [Self.error, Self.count, Self.low, Self.mid, Self.high].map { read($0) }
  }

  /// Reads `count` bytes from the data port by accesses of `width`.
  func take(_ count: Int, width: Int = 2) -> [UInt8] {
    (0..<count / width).flatMap { _ in
      let value = read(Self.data, width)
      return (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
    }
  }

  /// Writes `bytes` to the data port by accesses of 16 bits.
  func give(_ bytes: [UInt8]) {
    for index in stride(from: 0, to: bytes.count, by: 2) {
      write(Self.data, UInt64(bytes[index]) | UInt64(bytes[index + 1]) << 8, 2)
    }
  }

  /// The words of IDENTIFY DEVICE.
  func identify(drive: UInt64 = 0) -> [UInt16] {
    run(0xEC, drive: drive)
    let bytes = take(512)
    return (0..<256).map { UInt16(bytes[$0 * 2]) | UInt16(bytes[$0 * 2 + 1]) << 8 }
  }

  /// The address in the task file as LBA, with that of EXT commands read by HOB.
  func address(isExt: Bool = false) -> UInt64 {
    var value = read(Self.low) | read(Self.mid) << 8 | read(Self.high) << 16
    if isExt {
      write(Self.control, 0x80)
      value |= read(Self.low) << 24 | read(Self.mid) << 32 | read(Self.high) << 40
      write(Self.control, 0)
    } else {
      value |= (read(Self.device) & 0xF) << 24
    }
    return value
  }

  // MARK: The bus master

  /// Puts a table of regions at `place`, the last marked as such unless it has lost its end.
  func table(
    _ regions: [(base: UInt32, count: UInt32)], at place: UInt64 = 0x1000, hasEnd: Bool = true
  ) throws {
    for (index, region) in regions.enumerated() {
      let view = try memory.view(at: GuestAddress(place + UInt64(index) * 8), count: 8)
      view.store(region.base, 0)
      let isLast = hasEnd && index == regions.count - 1
      view.store(region.count & 0xFFFF | (isLast ? 0x8000_0000 : 0), 4)
    }
    write(Self.busMaster + 4, place, 4)
  }

  /// Starts the bus master, to memory for what is read from a disk.
  func master(toMemory: Bool) {
    write(Self.busMaster, toMemory ? 8 : 0)
    write(Self.busMaster, toMemory ? 9 : 1)
  }

  /// Stops it.
  func stopMaster() { write(Self.busMaster, 0) }

  /// Its status register.
  var masterStatus: UInt64 { read(Self.busMaster + 2) }
  /// Of it active, error and interrupt.
  var masterFlags: UInt64 { masterStatus & 7 }
}

/// Bits of Status.
enum IDEStatus {
  static let error: UInt64 = 0x01
  static let request: UInt64 = 0x08
  static let idle: UInt64 = 0x50
  static let busy: UInt64 = 0x80
  /// A block is to be moved.
  static let data: UInt64 = 0x58
  /// The command ended with an error.
  static let failed: UInt64 = 0x51
}

extension IDERig {
  /// A controller with `store` alone, for which no memory of a guest's is needed.
  static func controller(_ store: any BlockStore) throws -> IDEController {
    try IDEController(
      [.init(store, serial: "")], lines: (RecordingLine(), RecordingLine()),
      memory: GuestMemory(ramSize: 4096), mayMaster: { false })
  }
}

/// A disk of any size without contents.
final class HugeStore: BlockStore {
  let size: UInt64
  var isReadOnly: Bool { true }

  init(sectors: UInt64) { size = sectors * 512 }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {}
  func flush() throws(StorageError) {}
  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {}
  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}
