import Memory

/// hvm_start_info of version 1 with the lists it leads to (Xen, public/arch-x86/hvm/start_info.h).
struct PVHStartInfo {
  let commandLine: UInt64
  let modules: [Range<UInt64>]
  let rsdp: GuestAddress?
  let memoryMap: MemoryMap

  private static let magic: UInt32 = 0x336E_C578  // "xEn3" with the first bit set
  private static let headSize = 56
  private static let moduleSize = 32
  private static let entrySize = 24

  /// How many bytes `info` and its lists take.
  static func size(_ info: PVHStartInfo) -> Int {
    headSize + info.modules.count * moduleSize + info.memoryMap.entries.count * entrySize
  }

  /// The bytes for their place at `address`: the structure, the module list, the memory map.
  func bytes(at address: UInt64) -> [UInt8] {
    var record = Record(count: Self.size(self))
    let entries = Self.headSize + modules.count * Self.moduleSize
    record.store(Self.magic, at: 0)
    record.store(UInt32(1), at: 4)  // version
    record.store(UInt32(0), at: 8)  // flags: neither privileged nor the initial domain
    record.store(commandLine, at: 24)
    record.store(rsdp?.value ?? 0, at: 32)
    record.store(address + UInt64(entries), at: 40)
    record.store(UInt32(memoryMap.entries.count), at: 48)
    record.store(UInt32(modules.count), at: 12)
    if !modules.isEmpty { record.store(address + UInt64(Self.headSize), at: 16) }
    for (index, module) in modules.enumerated() {
      let offset = Self.headSize + index * Self.moduleSize
      record.store(module.lowerBound, at: offset)
      record.store(module.upperBound - module.lowerBound, at: offset + 8)
    }
    for (index, entry) in memoryMap.entries.enumerated() {
      let offset = entries + index * Self.entrySize
      record.store(entry.range.lowerBound, at: offset)
      record.store(entry.range.upperBound - entry.range.lowerBound, at: offset + 8)
      record.store(entry.kind.rawValue, at: offset + 16)
    }
    return record.bytes
  }
}
