/// Where a machine puts the tables that a PC's firmware leaves for kernels.
package struct FirmwareRoom: Equatable, Sendable {
  /// ACPI's, the RSDP first: a multiple of 64.
  package var acpi: Range<UInt64>
  /// The MP tables, their pointer first: a multiple of 16.
  package var mp: Range<UInt64>

  /// Room for both, each of which can be elsewhere below 1 MiB if an image has that place.
  package init(acpi: Range<UInt64>, mp: Range<UInt64>) {
    self.acpi = acpi
    self.mp = mp
  }

  /// Where kernels look for the MP tables' pointer (MultiProcessor Specification 1.4, 4); for the RSDP
  /// they look in all of `MemoryMap.firmware`.
  static let mpArea: Range<UInt64> = 0xF_0000..<0x10_0000
}

extension Placement {
  /// Keeps room for the machine's tables beside the image, which is placed: where they are to be, or
  /// else where kernels look for them, too. nil if the machine has none or there is no room.
  mutating func placeTables(_ request: BootRequest) throws(BootError) -> FirmwareRoom? {
    guard let wish = request.tables,
      let acpi = room(for: wish.acpi, alignment: 64, in: MemoryMap.firmware)
    else { return nil }
    try reserve("the ACPI tables", at: acpi.lowerBound, size: UInt64(acpi.count))
    guard let mp = room(for: wish.mp, alignment: 16, in: FirmwareRoom.mpArea) else { return nil }
    try reserve("the MP tables", at: mp.lowerBound, size: UInt64(mp.count))
    return FirmwareRoom(acpi: acpi, mp: mp)
  }

  private func room(
    for wish: Range<UInt64>, alignment: UInt64, in area: Range<UInt64>
  ) -> Range<UInt64>? {
    let size = UInt64(wish.count)
    let start =
      lowestRoom(for: size, alignment: alignment, in: wish)
      ?? lowestRoom(for: size, alignment: alignment, in: area)
    return start.map { $0..<$0 + size }
  }
}
