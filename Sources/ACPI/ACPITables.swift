import Memory

/// All ACPI tables of a machine as one piece of memory that starts with the RSDP.
///
/// A kernel without EFI looks for the RSDP from 0xE0000 to 0xFFFFF on 16-byte boundaries (ACPI 6.5,
/// 5.2.5.1). A further table is a file of its own and a line in `init`.
package struct ACPITables: Sendable {
  /// Where the bytes go, and where the RSDP is.
  package let start: GuestAddress
  /// Where FACS is from `start` on, a multiple of 64 (5.2.10).
  package static let facsOffset: UInt64 = 64
  /// The tables.
  package private(set) var bytes: [UInt8]

  /// Where an address inside `bytes` stands in them.
  struct Pointer {
    let offset: Int
    let width: Int
  }

  /// A byte that makes the sum of `range` zero.
  struct Checksum {
    let offset: Int
    let range: Range<Int>
  }

  /// All addresses in them, and the checksums of what holds addresses: what to change to move them.
  private(set) var pointers = RSDP.pointers
  private(set) var checksums = RSDP.checksums

  /// The tables of `platform` for `start`, a multiple of 64 below 4 GiB.
  package init(_ platform: PlatformDescription, at start: GuestAddress) {
    precondition(start.value % 64 == 0 && start.value < 1 << 32 - 1 << 24)
    self.start = start
    bytes = [UInt8](repeating: 0, count: RSDP.size)
    // FACS comes first, the rest on boundaries of 8 bytes for the XSDT's sake.
    let facs = place(FACS.bytes(), at: Int(Self.facsOffset))
    let dsdt = place(DSDT.table(platform), at: 8)
    var listed = [place(FADT.table(platform, facs: facs, dsdt: dsdt), at: 8, FADT.pointers)]
    listed.append(place(MADT.table(platform), at: 8))
    if let pci = platform.pci { listed.append(place(MCFG.table(pci), at: 8)) }
    let rsdt = place(RootTables.rsdt(listed), at: 8, RootTables.pointers(listed.count, width: 4))
    let xsdt = place(RootTables.xsdt(listed), at: 8, RootTables.pointers(listed.count, width: 8))
    bytes.replaceSubrange(0..<RSDP.size, with: RSDP.bytes(rsdt: rsdt, xsdt: xsdt))
  }

  /// Puts `table`, which holds addresses at `pointers`, behind what is there and returns its address in
  /// the guest.
  private mutating func place(
    _ table: [UInt8], at alignment: Int, _ pointers: [Pointer] = []
  ) -> UInt32 {
    bytes.pad(to: alignment)
    let start = bytes.count
    bytes += table
    self.pointers += pointers.map { Pointer(offset: start + $0.offset, width: $0.width) }
    if !pointers.isEmpty {
      checksums.append(
        Checksum(offset: start + SystemTable.checksumOffset, range: start..<bytes.count))
    }
    return UInt32(self.start.value) + UInt32(start)
  }
}
