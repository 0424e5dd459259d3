import Host
import Memory

/// Puts things into the guest's RAM, each inside it and none on top of another.
struct Placement {
  let image: Image
  let ram: RAM
  let layout: BootLayout
  /// What kind of mistake an overlap is, and what to do about it.
  let overlap: (cause: BootError.Cause, remedy: Advice)
  private(set) var pieces: [BootPlan.Piece] = []
  // Pieces, too: a list of ranges takes a look through all conformances that a program has.
  private(set) var taken: [BootPlan.Piece] = []

  init(_ request: BootRequest, overlap cause: BootError.Cause, remedy: Advice) {
    image = request.image
    ram = request.ram
    layout = request.layout
    overlap = (cause, remedy)
  }

  /// Places `contents` at `start`, and zeros behind them up to `size` bytes.
  mutating func place(
    _ what: String, _ contents: ArraySlice<UInt8>, size: UInt64? = nil, at start: UInt64
  ) throws(BootError) {
    let size = size ?? UInt64(contents.count)
    try reserve(what, at: start, size: size)
    pieces.append(
      BootPlan.Piece(what: what, start: GuestAddress(start), size: size, contents: contents))
  }

  /// Keeps `size` bytes at `start` free of everything else.
  mutating func reserve(_ what: String, at start: UInt64, size: UInt64) throws(BootError) {
    let (end, overflows) = start.addingReportingOverflow(size)
    guard !overflows else {
      throw image.error(
        .malformed,
        about:
          "\(what) starts at \(hex(start)) and takes \(hex(size)) bytes, which goes past the last "
          + "address of 64 bits: the image is damaged; build it again")
    }
    let range = start..<end
    guard ram.contains(range) else { throw outside(what, range) }
    if let other = taken.first(where: { $0.range.overlaps(range) }) {
      throw image.error(
        overlap.cause,
        about: "\(what) (\(span(range))) overlaps \(other.what) (\(span(other.range))): "
          + overlap.remedy)
    }
    taken.append(
      BootPlan.Piece(what: what, start: GuestAddress(start), size: size, contents: []))
  }

  private func outside(_ what: String, _ range: Range<UInt64>) -> BootError {
    let memory = ram.ranges.map(span).joined(separator: " and ")
    let remedy: Advice =
      if let size = RAM.size(holding: range) {
        "it takes \(.memory, Boot.size(size))"
      } else {
        "no \(.memory) changes that, for \(span(GuestMemory.holeStart..<GuestMemory.holeEnd)) belongs "
          + "to devices and RAM ends below \(hex(UInt64(1) << 46)); move it"
      }
    return image.error(
      .memory, about: "\(what) (\(span(range))) isn't all in the guest's RAM (\(memory)): \(remedy)"
    )
  }
}

extension Placement {
  /// Places what protected and long mode start with: GDT, page tables, room for the first stack.
  mutating func placeStartTables(
    for mode: CPUMode, gdt: [UInt8]? = nil
  ) throws(BootError) {
    let gdt = gdt ?? FlatSegments.table(for: mode)
    try place("kvmlite's GDT", gdt[...], at: layout.descriptorTable.value)
    if mode == .long {
      let tables = PageTables.bytes(at: layout.pageTables.value)
      try place("kvmlite's page tables", tables[...], at: layout.pageTables.value)
    }
    let stack = layout.stackTop.value - BootLayout.leastStack
    try reserve("the first stack", at: stack, size: BootLayout.leastStack)
  }
}
