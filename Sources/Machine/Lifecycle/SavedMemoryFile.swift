import Host
import Memory

/// A guest's memory as files: pages that are zero are holes. Of a save that was made onto another one the
/// file has only the pages that were changed since; the rest is in that one's. A machine goes on with a
/// private view of them: pages come as they are touched, and what the machine writes stays with it.
package struct SavedMemoryFile: Sendable {
  let table: SavedMemoryTable
  /// The files, the newest first.
  private let files: [SharedDescriptor]
  /// Which pages each but the last has itself.
  private let pages: [SavedPages]

  /// The memory in `files`, of which each but the last has only `pages`. They are as long as `table` says.
  init(_ table: SavedMemoryTable, _ files: [SharedDescriptor], _ pages: [SavedPages]) {
    precondition(files.count == pages.count + 1)
    (self.table, self.files, self.pages) = (table, files, pages)
  }

  /// The file that has the page at `place`, and where the pages end that follow it there.
  private func run(from place: Int, until end: Int) -> (file: Int, end: Int) {
    guard !pages.isEmpty else { return (0, end) }
    let size = Int(GuestMemory.pageSize)
    func owner(_ page: Int) -> Int { pages.firstIndex { $0.contains(page) } ?? pages.count }
    let file = owner(place / size)
    var next = place + size
    while next < end, owner(next / size) == file { next += size }
    return (file, next)
  }

  // MARK: Reading

  /// What is in a part of it.
  enum Contents {
    /// Nothing but holes, which read as zeros.
    case hole
    case bytes([UInt8])
  }

  /// Reads it, by rising places.
  struct Reader {
    private let memory: SavedMemoryFile
    /// What is known of each file's holes.
    private var known: [FileDescriptor.Extent]

    init(_ memory: SavedMemoryFile) {
      self.memory = memory
      known = memory.files.map { _ in .data(until: 0) }
    }

    /// What is at `place`, whole pages; nil if it isn't all there.
    mutating func contents(_ place: Range<Int>) throws(Errno) -> Contents? {
      var bytes: [UInt8] = []
      var start = place.lowerBound
      while start < place.upperBound {
        let run = memory.run(from: start, until: place.upperBound)
        if !isHole(run.file, start..<run.end) {
          guard let part = try read(run.file, start..<run.end) else { return nil }
          if part.count == place.count { return .bytes(part) }
          if bytes.isEmpty { bytes = [UInt8](repeating: 0, count: place.count) }
          let offset = start - place.lowerBound
          bytes.replaceSubrange(offset..<offset + part.count, with: part)
        }
        start = run.end
      }
      return bytes.isEmpty ? .hole : .bytes(bytes)
    }

    private func read(_ file: Int, _ place: Range<Int>) throws(Errno) -> [UInt8]? {
      var bytes = [UInt8](repeating: 0, count: place.count)
      var span = bytes.mutableSpan
      let count = try memory.files[file].file.readAll(into: &span, at: place.lowerBound)
      return count == place.count ? bytes : nil
    }

    private mutating func isHole(_ file: Int, _ place: Range<Int>) -> Bool {
      if known[file].end <= place.lowerBound {
        known[file] = memory.files[file].file.extent(
          at: UInt64(place.lowerBound), length: memory.table.byteCount)
      }
      guard case .hole(let end) = known[file] else { return false }
      return end >= place.upperBound
    }
  }

  /// Looks whether the files' bytes are those that were written; this reads all that isn't a hole.
  /// `progress` gets how many of all bytes were looked at.
  package func verify(
    progress: (_ done: UInt64, _ all: UInt64) -> Void = { _, _ in }
  ) throws(RestoreError) {
    try read(progress) { (_: [UInt8], _) throws(RestoreError) in }
  }

  /// Reads all and looks whether it is what was written; `take` gets what isn't a hole, and where it is.
  func read(
    _ progress: (_ done: UInt64, _ all: UInt64) -> Void,
    _ take: ([UInt8], Int) throws(RestoreError) -> Void
  ) throws(RestoreError) {
    var reader = Reader(self)
    try table.forEachPiece { (number, region, place) throws(RestoreError) in
      progress(UInt64(place.lowerBound), table.byteCount)
      let contents: Contents?
      do throws(Errno) { contents = try reader.contents(place) } catch { throw .file(error) }
      let checksum: UInt32? =
        switch contents {
        case .bytes(let bytes): CRC32C.checksum(of: bytes.span)
        case .hole: CRC32C.checksum(zeros: place.count)
        case nil: nil
        }
      guard checksum == table.checksums[number] else {
        let offset = UInt64(place.lowerBound) - region.offset
        throw .damagedMemory(GuestAddress(region.start.value + offset))
      }
      if case .bytes(let bytes)? = contents { try take(bytes, place.lowerBound) }
    }
  }

  // MARK: Going on with it

  /// Memory that begins with these contents. What other processes are to have is copied.
  func makeMemory(isShareable: Bool) throws(RestoreError) -> GuestMemory {
    var made: [GuestMemory.Region] = []
    var views = Views()
    for region in table.regions {
      do throws(Errno) {
        let view = try makeView(region.range, &views)
        let mapping = isShareable ? try Self.shareable(view) : view
        made.append(.init(start: region.start, kind: region.isROM ? .rom : .ram, mapping: mapping))
      } catch {
        if error == .invalidArgument { throw .damagedMemory(region.start) }
        throw .file(error)
      }
    }
    guard let memory = GuestMemory(regions: made), Self.isRAM(memory) else { throw .memory }
    return memory
  }

  /// Which parts of newer files are views of them, and not copies: a process can't have many.
  private struct Views {
    private var left = 4096

    mutating func take(_ count: Int) -> Bool {
      guard count >= 256 << 10, left > 0 else { return false }
      left -= 1
      return true
    }
  }

  private func makeView(_ range: Range<Int>, _ views: inout Views) throws(Errno) -> Mapping {
    let mapping = try Mapping(
      privateViewOf: files[pages.count].file, offset: range.lowerBound, count: range.count)
    let view = MemoryView(mapping)
    var start = range.lowerBound
    while start < range.upperBound {
      let run = run(from: start, until: range.upperBound)
      let (place, count) = (start - range.lowerBound, run.end - start)
      if run.file < pages.count {
        let file = files[run.file]
        if views.take(count) {
          try mapping.show(file.file, from: start, at: place, count: count)
        } else {
          let part = [view.slice(place, count: count)]
          guard try file.file.read(into: part, at: UInt64(start)) == count else {
            throw .invalidArgument
          }
        }
      }
      start = run.end
    }
    return mapping
  }

  /// Whether RAM is where a machine has it.
  private static func isRAM(_ memory: GuestMemory) -> Bool {
    let low = min(memory.ramSize, GuestMemory.holeStart)
    let expected = [(0, low), (GuestMemory.holeEnd, memory.ramSize - low)].filter { $0.1 > 0 }
    let ram = memory.regions.filter { $0.kind == .ram }.map { ($0.start.value, $0.count) }
    return ram.count == expected.count && zip(ram, expected).allSatisfy { $0 == $1 }
  }

  private static func shareable(_ view: Mapping) throws(Errno) -> Mapping {
    let copy = try Mapping(shareable: view.count)
    let (source, target) = (MemoryView(view), MemoryView(copy))
    let piece = SavedMemoryTable.piece
    for start in stride(from: 0, to: view.count, by: piece) {
      let count = min(piece, view.count - start)
      guard !source.isZero(from: start, count: count) else { continue }
      var bytes = [UInt8](repeating: 0, count: count)
      var span = bytes.mutableSpan
      source.copy(to: &span, from: start)
      target.copy(from: bytes.span, at: start)
    }
    return copy
  }
}
