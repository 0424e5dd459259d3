import Memory

/// What a kernel is told of its memory, in the manner of the BIOS call INT 15h, AX=E820h.
///
/// Every boot protocol that kvmlite has passes the same entries with the same numbers for their
/// kinds. What no entry names is for devices that a kernel finds or places itself, such as PCI's.
package struct MemoryMap: Equatable, Sendable {
  /// One stretch of addresses.
  package struct Entry: Equatable, Sendable {
    /// The addresses.
    package let range: Range<UInt64>
    /// What is there.
    package let kind: Kind

    /// Addresses that the kernel is to leave alone.
    package static func reserved(_ range: Range<UInt64>) -> Entry {
      Entry(range: range, kind: .reserved)
    }
  }

  /// What is in a stretch of addresses, by its number (ACPI 6.4, table 15.4).
  package enum Kind: UInt32, Sendable {
    /// Memory for the kernel to use.
    case ram = 1
    /// Nothing for the kernel to use.
    case reserved = 2
    /// Memory that the kernel may use once it has read the ACPI tables there.
    case acpi = 3
  }

  /// All entries by rising address; none overlap.
  package let entries: [Entry]

  /// Where the PC's video memory, option ROMs and firmware are, and before them the BIOS's own data
  /// area of 1 KiB, where an MP table may stand.
  package static let legacyHole: Range<UInt64> = 0x9FC00..<0x10_0000
  /// The end of legacy hole: firmware and what it leaves there, such as the ACPI tables.
  package static let firmware: Range<UInt64> = 0xE_0000..<0x10_0000

  /// The map of a guest with `ramSize` bytes of RAM, and with `reserved` beside the legacy hole,
  /// which lies above RAM or in its hole below 4 GiB.
  package init(ramSize: UInt64, reserved: [Entry] = []) {
    var entries = [.reserved(Self.legacyHole)] + reserved
    for ram in RAM(size: ramSize).ranges {
      let parts = [
        ram.clamped(to: 0..<Self.legacyHole.lowerBound),
        ram.clamped(to: Self.legacyHole.upperBound..<UInt64.max),
      ]
      entries += parts.filter { !$0.isEmpty }.map { Entry(range: $0, kind: .ram) }
    }
    self.entries = entries.sorted { $0.range.lowerBound < $1.range.lowerBound }
  }
}
