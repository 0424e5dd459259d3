import Memory

/// The Multiboot information with what it leads to (Multiboot 0.6.96, 3.3).
struct MultibootInfo {
  private let modules: [Range<UInt64>]
  private let memoryMap: MemoryMap
  private let ram: RAM
  private let commandLine: [UInt8]
  private let moduleNames: [[UInt8]]
  private let loaderName = Array("kvmlite".utf8) + [0]

  /// Up to and with the fields of the VBE; those of a frame buffer would follow.
  private static let headSize = 88
  private static let moduleSize = 16
  private static let entrySize = 24

  /// Which of the fields hold something (3.3, `flags`).
  private enum Flag {
    static let memory: UInt32 = 1 << 0
    static let commandLine: UInt32 = 1 << 2
    static let modules: UInt32 = 1 << 3
    static let memoryMap: UInt32 = 1 << 6
    static let loaderName: UInt32 = 1 << 9
    static let all = memory | commandLine | modules | memoryMap | loaderName
  }

  /// The information for `request`, whose modules have been placed.
  init(_ request: BootRequest, modules: [Range<UInt64>]) throws(BootError) {
    self.modules = modules
    memoryMap = request.memoryMap
    ram = request.ram
    // The kernel's name comes first, as GRUB and QEMU have it.
    let arguments = try request.commandLine(atMost: UInt64.max)
    let separator: [UInt8] = arguments.count > 1 ? [0x20] : []
    commandLine = Self.text(request.image.name) + separator + arguments
    // GRUB and QEMU give a module's name before its arguments, too.
    moduleNames = request.options.initrds.map { file in
      Self.text(file.arguments.isEmpty ? file.name : file.name + " " + file.arguments) + [0]
    }
  }

  private static func text(_ name: String) -> [UInt8] { name.utf8.filter { $0 != 0 } }

  // Where the parts are, one after the other, from the structure on.
  private var moduleOffset: Int { Self.headSize }
  private var mapOffset: Int { moduleOffset + modules.count * Self.moduleSize }
  private var mapSize: Int { memoryMap.entries.count * Self.entrySize }
  private var loaderNameOffset: Int { mapOffset + mapSize }
  private var moduleNameOffset: Int { loaderNameOffset + loaderName.count }
  private var commandLineOffset: Int { moduleNameOffset + moduleNames.reduce(0) { $0 + $1.count } }

  /// How many bytes all of it takes.
  var size: Int { commandLineOffset + commandLine.count }

  /// The bytes for their place at `address`, which is below 4 GiB.
  func bytes(at address: UInt64) -> [UInt8] {
    func pointer(_ offset: Int) -> UInt32 { UInt32(address + UInt64(offset)) }
    var record = Record(count: size)
    record.store(Flag.all, at: 0)
    storeMemorySizes(in: &record)
    record.store(pointer(commandLineOffset), at: 16)
    record.store(pointer(moduleOffset), at: 24)
    storeModules(in: &record, pointer)
    record.store(UInt32(mapSize), at: 44)
    record.store(pointer(mapOffset), at: 48)
    record.store(pointer(loaderNameOffset), at: 64)
    storeMemoryMap(in: &record)
    record.copy(loaderName[...], to: loaderNameOffset)
    record.copy(commandLine[...], to: commandLineOffset)
    return record.bytes
  }

  private func storeModules(in record: inout Record, _ pointer: (Int) -> UInt32) {
    record.store(UInt32(modules.count), at: 20)
    var nameOffset = moduleNameOffset
    for (index, module) in modules.enumerated() {
      let offset = moduleOffset + index * Self.moduleSize
      record.store(UInt32(module.lowerBound), at: offset)
      record.store(UInt32(module.upperBound), at: offset + 4)
      record.store(pointer(nameOffset), at: offset + 8)
      record.copy(moduleNames[index][...], to: nameOffset)
      nameOffset += moduleNames[index].count
    }
  }

  /// mem_lower and mem_upper, in KiB: from 0, and from 1 MiB to the first hole.
  private func storeMemorySizes(in record: inout Record) {
    let low = min(ram.size, GuestMemory.holeStart)
    record.store(UInt32(min(low, MemoryMap.legacyHole.lowerBound) >> 10), at: 4)
    let high = MemoryMap.legacyHole.upperBound
    record.store(UInt32((max(low, high) - high) >> 10), at: 8)
  }

  /// Entries start with their size, which doesn't count itself.
  private func storeMemoryMap(in record: inout Record) {
    for (index, entry) in memoryMap.entries.enumerated() {
      let offset = mapOffset + index * Self.entrySize
      record.store(UInt32(Self.entrySize - 4), at: offset)
      record.store(entry.range.lowerBound, at: offset + 4)
      record.store(entry.range.upperBound - entry.range.lowerBound, at: offset + 12)
      record.store(entry.kind.rawValue, at: offset + 20)
    }
  }
}
