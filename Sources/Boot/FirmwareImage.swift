import Host
import Memory

extension BootPlan {
  /// Plans the start of `firmware`, a PC's BIOS or the like, in a guest with `ramSize` bytes of RAM.
  ///
  /// The ROM ends at 4 GiB, where a processor looks for its first instruction after a reset (Intel
  /// SDM vol 3, 10.1.4); `roms` has it. A copy of its end is below 1 MiB, in RAM: firmware writes there
  /// what operating systems look for. A PC's chip set shows 128 KiB, and copies more when told to;
  /// there being none to tell, firmware of 256 KiB such as SeaBIOS's finds all of it in place.
  package init(firmware: BootFile, ramSize: UInt64) throws(BootError) {
    let image = Image(bytes: firmware.bytes, name: firmware.name)
    try Self.requireROM(image)
    let least = MemoryMap.firmware.upperBound
    guard ramSize >= least else {
      throw image.error(
        .memory, "is firmware, which needs RAM below 1 MiB: give it \(.memory, "1M") or more")
    }
    let shadow = min(image.bytes.count, Self.largestShadow)
    let copy = Piece(
      what: "the firmware's copy", start: GuestAddress(least - UInt64(shadow)),
      size: UInt64(shadow), contents: image.bytes.suffix(shadow))
    let start = GuestAddress(PageTables.reach - image.count)
    self.init(
      format: .firmware, pieces: [copy], roms: [(start, image.bytes)], entry: .reset)
  }

  private static let largestShadow = 256 << 10

  private static func requireROM(_ image: Image) throws(BootError) {
    let unit: UInt64 = 64 << 10
    let most: UInt64 = 16 << 20
    guard !image.bytes.isEmpty, image.count <= most, image.count % unit == 0 else {
      throw image.error(
        .malformed,
        "has \(image.count) bytes, and firmware has a multiple of 64 KiB, 16 MiB at most: give "
          + "\(.firmware) a ROM image such as /usr/share/seabios/bios.bin, and a kernel as the image"
      )
    }
    // The last 16 bytes, which hold the first instruction, are never all the same.
    let vector = image.bytes.suffix(16)
    guard vector.contains(where: { $0 != vector.first }) else {
      throw image.error(
        .malformed,
        "has no reset vector (its last 16 bytes are all \(hex(vector.first ?? 0))): give \(.firmware) "
          + "a ROM image such as /usr/share/seabios/bios.bin")
    }
  }
}

extension EntryState {
  /// A processor after a reset (Intel SDM vol 3, table 10-1).
  fileprivate static var reset: EntryState {
    var entry = EntryState.real(selector: 0, instructionPointer: 0xFFF0, stackPointer: 0)
    entry.code = EntryState.Segment(
      selector: 0xF000, base: 0xFFFF_0000, limit: 0xFFFF, type: EntryState.Segment.codeType)
    // The processor's family, model and stepping: those of the first that KVM can be.
    entry.rdx = 0x600
    return entry
  }
}
