import Memory

/// The little that kernels expect of a PC's BIOS when no protocol has told them that there is none.
///
/// Xen and Linux read how much memory there is below the legacy hole before they put the code that
/// starts further processors there (Xen, arch/x86/boot/head.S; Linux, arch/x86/kernel/ebda.c): a zero
/// would be taken at its word. Multiboot kernels may call the BIOS, as Xen does for its memory map,
/// disks and video modes: every call fails, and they go by what the loader says. The timer's interrupt
/// may come meanwhile.
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

  /// The code of hardware's interrupts, in a part of the data area that nobody has (0x4AC to 0x4EF).
  private enum Handler {
    static let start: UInt64 = 0x4B0
    /// For the second 8259's: push ax; mov al, 0x20; out 0xA0, al; jmp to the last `out` of the next.
    static let second: [UInt8] = [0x50, 0xB0, 0x20, 0xE6, 0xA0, 0xEB, 0x03]
    /// For the first one's: push ax; mov al, 0x20; out 0x20, al; pop ax; iret.
    static let first: [UInt8] = [0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF]
    /// For the timer's: push ax; push ds; xor ax, ax; mov ds, ax; inc dword [0x46C]; pushf; call far
    /// [0x70], which is INT 1Ch; pop ds; jmp to the first `mov` of the one before.
    static let timer: [UInt8] = [
      0x50, 0x1E, 0x31, 0xC0, 0x8E, 0xD8, 0x66, 0xFF, 0x06, 0x6C, 0x04, 0x9C, 0xFF, 0x1E, 0x70,
      0x00, 0x1F, 0xEB, 0xE7,
    ]

    /// Where the code for `vector` starts; all others but services come back at once, by IRET.
    static func address(_ vector: Int) -> UInt64 {
      let first = start + UInt64(second.count)
      let timer = first + UInt64(Self.first.count)
      return switch vector {
      case 0x08: timer
      case 0x09...0x0F: first
      case 0x70...0x77: start
      default: timer - 1
      }
    }
  }

  /// All of the first 0x500 bytes of a guest with `ram` that runs in real mode: each vector leads to
  /// something that comes back.
  static func withAllVectors(_ ram: RAM) -> [UInt8] {
    var record = Record(count: Int(range.upperBound))
    record.copy(bytes(ram)[...], to: Int(range.lowerBound))
    for vector in 0..<256 where !services.contains(vector) {
      record.store(UInt32(Handler.address(vector)), at: vector * 4)
    }
    let code = Handler.second + Handler.first + Handler.timer
    record.copy(code[...], to: Int(Handler.start))
    return record.bytes
  }

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
  /// Places what firmware leaves for real mode, or as much of it as the image leaves room for.
  mutating func placeVectors() throws(BootError) {
    let bytes = BIOSDataArea.withAllVectors(ram)
    let size = UInt64(bytes.count)
    guard lowestRoom(for: size, alignment: 1, in: 0..<size) == 0 else {
      return try placeBIOSDataArea()
    }
    try place("the BIOS's vectors and data", bytes[...], at: 0)
  }

  /// Places the BIOS data area, unless the kernel wants something of its own there.
  mutating func placeBIOSDataArea() throws(BootError) {
    let range = BIOSDataArea.range
    let bytes = BIOSDataArea.bytes(ram)
    let size = UInt64(bytes.count)
    guard lowestRoom(for: size, alignment: 1, in: range) == range.lowerBound else { return }
    try place("the BIOS data area", bytes[...], at: range.lowerBound)
  }
}
