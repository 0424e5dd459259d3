import Host
import Memory

/// Writes a guest's memory to a file: pages that are zero are holes, and with a base none is written that
/// it has.
struct SavedMemoryWriter {
  /// Which pages are in the file; nil without a base: all.
  private(set) var pages: SavedPages?
  private var base: (memory: SavedMemoryFile, reader: SavedMemoryFile.Reader)?
  private static let page = Int(GuestMemory.pageSize)

  /// Compares with `base`, whose table has the same regions.
  init(onto base: SavedMemoryFile? = nil) {
    pages = base.map { SavedPages(pageCount: $0.table.pageCount) }
    self.base = base.map { ($0, SavedMemoryFile.Reader($0)) }
  }

  /// Writes `memory`, whose guest stands still, to `file`, which is empty; returns what says how it is
  /// laid out.
  mutating func write(
    _ memory: GuestMemory, to file: borrowing FileDescriptor
  ) throws(Errno) -> SavedMemoryTable {
    let layout = SavedMemoryTable(SavedMemoryTable.regions(of: memory), [])
    try file.setLength(layout.byteCount)
    var checksums: [UInt32] = []
    try layout.forEachPiece { (number, region, place) throws(Errno) in
      let address = GuestAddress(region.start.value + UInt64(place.lowerBound) - region.offset)
      guard let view = try? memory.view(at: address, count: UInt64(place.count)) else {
        throw .invalidArgument
      }
      checksums.append(try write(view, number, place, to: file))
    }
    return SavedMemoryTable(layout.regions, checksums)
  }

  /// Writes a piece, and returns its checksum.
  private mutating func write(
    _ view: MemoryView, _ number: Int, _ place: Range<Int>, to file: borrowing FileDescriptor
  ) throws(Errno) -> UInt32 {
    let old = try base?.reader.contents(place)
    let isZero = view.isZero(from: 0, count: view.count)
    switch old {
    case .bytes(let bytes)? where view.isEqual(to: bytes.span, from: 0):
      // Were the base damaged, this one is.
      return base?.memory.table.checksums[number] ?? 0
    case .hole?, nil:
      if isZero { return CRC32C.checksum(zeros: view.count) }
    default: break
    }
    var bytes = [UInt8](repeating: 0, count: view.count)
    var span = bytes.mutableSpan
    view.copy(to: &span, from: 0)
    let written = stride(from: 0, to: view.count, by: Self.page).filter { start in
      guard hasChanged(view, start, since: old) else { return false }
      pages?.insert((place.lowerBound + start) / Self.page)
      return !view.isZero(from: start, count: Self.page)
    }
    try Self.write(bytes, written, to: file, at: place.lowerBound)
    return CRC32C.checksum(of: bytes.span)
  }

  private func hasChanged(
    _ view: MemoryView, _ start: Int, since old: SavedMemoryFile.Contents?
  ) -> Bool {
    switch old {
    case nil: true
    case .hole?: !view.isZero(from: start, count: Self.page)
    case .bytes(let bytes)?:
      !view.isEqual(to: bytes.span.extracting(start..<start + Self.page), from: start)
    }
  }

  /// Writes those pages of a piece at `place` that aren't zero.
  static func write(
    _ bytes: [UInt8], to file: borrowing FileDescriptor, at place: Int
  ) throws(Errno) {
    let written = stride(from: 0, to: bytes.count, by: page).filter { start in
      bytes[start..<start + page].contains { $0 != 0 }
    }
    try write(bytes, written, to: file, at: place)
  }

  /// Writes the pages that start at `starts`, neighbours together.
  private static func write(
    _ bytes: [UInt8], _ starts: [Int], to file: borrowing FileDescriptor, at place: Int
  ) throws(Errno) {
    var index = 0
    while index < starts.count {
      let first = starts[index]
      var end = first
      while index < starts.count, starts[index] == end {
        end += page
        index += 1
      }
      try file.writeAll(bytes.span.extracting(first..<end), at: place + first)
    }
  }
}
