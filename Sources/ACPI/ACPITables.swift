import Memory

/// All ACPI tables of a machine as one piece of memory that starts with the RSDP.
///
/// A kernel without EFI looks for the RSDP from 0xE0000 to 0xFFFFF on 16-byte boundaries (ACPI 6.5,
/// 5.2.5.1). A further table is a file of its own and a line in `init`.
public struct ACPITables: Sendable {
  /// Where the bytes go, and where the RSDP is.
  public let start: GuestAddress
  /// Where FACS is from `start` on, a multiple of 64 (5.2.10).
  public static let facsOffset: UInt64 = 64
  /// The tables.
  public let bytes: [UInt8]

  /// The tables of `platform` for `start`, a multiple of 64 below 4 GiB.
  public init(_ platform: PlatformDescription, at start: GuestAddress) {
    precondition(start.value % 64 == 0 && start.value < 1 << 32 - 1 << 24)
    let base = UInt32(start.value)
    var bytes = [UInt8](repeating: 0, count: RSDP.size)
    // FACS comes first, the rest on boundaries of 8 bytes for the XSDT's sake.
    let facs = Self.place(FACS.bytes(), at: Int(Self.facsOffset), base, in: &bytes)
    let dsdt = Self.place(DSDT.table(platform), at: 8, base, in: &bytes)
    var listed = [
      Self.place(FADT.table(platform, facs: facs, dsdt: dsdt), at: 8, base, in: &bytes)
    ]
    listed.append(Self.place(MADT.table(platform), at: 8, base, in: &bytes))
    if let pci = platform.pci {
      listed.append(Self.place(MCFG.table(pci), at: 8, base, in: &bytes))
    }
    let rsdt = Self.place(RootTables.rsdt(listed), at: 8, base, in: &bytes)
    let xsdt = Self.place(RootTables.xsdt(listed), at: 8, base, in: &bytes)
    bytes.replaceSubrange(0..<RSDP.size, with: RSDP.bytes(rsdt: rsdt, xsdt: xsdt))
    self.start = start
    self.bytes = bytes
  }

  /// Puts `table` behind what is there and returns its address in the guest.
  private static func place(
    _ table: [UInt8], at alignment: Int, _ base: UInt32, in bytes: inout [UInt8]
  ) -> UInt32 {
    bytes.pad(to: alignment)
    let address = base + UInt32(bytes.count)
    bytes += table
    return address
  }
}
