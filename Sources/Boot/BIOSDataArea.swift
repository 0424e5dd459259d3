import Memory

/// What kernels read of what a BIOS leaves at 0x400: how much memory there is below the legacy hole.
///
/// Xen and Linux look there before they put the code that starts further processors into low memory
/// (Xen, arch/x86/boot/head.S; Linux, arch/x86/kernel/ebda.c). A zero would be taken at its word.
enum BIOSDataArea {
  static let range: Range<UInt64> = 0x400..<0x500

  /// The bytes for a guest with `ram`: the extended area's segment at 0x40E, and KiB at 0x413.
  static func bytes(_ ram: RAM) -> [UInt8] {
    let end = MemoryMap.legacyHole.lowerBound
    var record = Record(count: Int(range.upperBound - range.lowerBound))
    record.store(UInt16(end >> 4), at: 0x0E)
    record.store(UInt16(min(ram.size, end) >> 10), at: 0x13)
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
