import Memory

/// The little that kernels expect of a PC's BIOS when no protocol has told them that there is none.
///
/// Xen and Linux read how much memory there is below the legacy hole before they put the code that
/// starts further processors there (Xen, arch/x86/boot/head.S; Linux, arch/x86/kernel/ebda.c): a zero
/// would be taken at its word. Multiboot kernels may call the BIOS, as Xen does for its memory map,
/// disks and video modes: every call fails, and they go by what the loader says.
enum BIOSDataArea {
  /// From the first vector of a BIOS service to the end of the data area proper.
  static let range: Range<UInt64> = 0x40..<0x500

  /// The vectors of BIOS services, INT 10h (video) to INT 1Ah (clock).
  private static let services = 0x10...0x1A
  /// The code that they all lead to: 16 bytes that belong to whatever program runs.
  private static let failure: UInt64 = 0x4F0
  /// Sets the carry flag of the caller: push bp; mov bp, sp; or byte [bp+6], 1; pop bp; iret.
  private static let failureCode: [UInt8] = [
    0x55, 0x89, 0xE5, 0x80, 0x4E, 0x06, 0x01, 0x5D, 0xCF,
  ]

  /// The bytes for a guest with `ram`.
  static func bytes(_ ram: RAM) -> [UInt8] {
    func offset(_ address: UInt64) -> Int { Int(address - range.lowerBound) }
    var record = Record(count: offset(range.upperBound))
    for vector in services {
      record.store(UInt32(failure), at: offset(UInt64(vector) * 4))
    }
    record.copy(failureCode[...], to: offset(failure))
    // The segment of the BIOS's extended data area, and how many KiB end before it.
    let end = MemoryMap.legacyHole.lowerBound
    record.store(UInt16(end >> 4), at: offset(0x40E))
    record.store(UInt16(min(ram.size, end) >> 10), at: offset(0x413))
    return record.bytes
  }
}

extension Placement {
  /// Places the BIOS data area, unless the kernel wants something of its own there.
  mutating func placeBIOSDataArea() throws(BootError) {
    let range = BIOSDataArea.range
    let bytes = BIOSDataArea.bytes(ram)
    let size = UInt64(bytes.count)
    guard lowestRoom(for: size, alignment: 1, in: range) == range.lowerBound else { return }
    try place("the BIOS data area", bytes[...], at: range.lowerBound)
  }
}
