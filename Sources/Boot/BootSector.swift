extension BootPlan {
  /// A boot sector, started as a PC's BIOS starts the first sector of the first hard disk.
  static func bootSector(_ request: BootRequest) throws(BootError) -> BootPlan {
    try request.requireOwn(mode: .real)
    try request.requireNothingToTell()
    let address = request.layout.bootSector.value
    // What else is placed is elsewhere, so nothing can overlap.
    var placement = Placement(request, overlap: .malformed, remedy: "make it smaller")
    try placement.place("the boot sector", request.image.bytes[...], at: address)
    try placement.placeVectors()
    // The BIOS promises no stack, so sectors make their own; should one not, its stack grows away
    // from it into memory that nobody uses.
    var entry = EntryState.real(
      selector: 0, instructionPointer: UInt16(address), stackPointer: UInt16(address))
    entry.rdx = 0x80
    return BootPlan(format: request.format, pieces: placement.pieces, entry: entry)
  }
}
