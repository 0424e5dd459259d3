import Devices
import Host
import Memory

/// A guest's memory as a file: its regions one behind the other, by rising address; pages that are zero
/// are holes. A machine goes on with a private view of it: pages come as they are touched, and what the
/// machine writes stays with it.
package struct SavedMemoryFile: Sendable {
  private struct Region {
    let start: GuestAddress
    let kind: GuestMemory.Region.Kind
    let count: UInt64
    /// Where it is in the file.
    let offset: UInt64
  }

  private let regions: [Region]
  /// The CRC-32C of each `piece` of the file.
  private let checksums: [UInt32]
  private let file: SharedDescriptor

  /// Bytes that have a checksum of their own: they are looked at, and written, as one.
  private static let piece = 64 << 10
  /// A machine has RAM below and above the hole, and few ROMs.
  private static let mostRegions = 16

  // MARK: Writing

  /// Writes `memory`, whose guest stands still, to `file`, which is empty; returns what says how it is
  /// laid out.
  static func write(
    _ memory: GuestMemory, to file: borrowing FileDescriptor
  ) throws(Errno) -> [UInt8] {
    var table = StateWriter()
    var checksums: [UInt8] = []
    try file.setLength(memory.regions.reduce(0) { $0 + $1.count })
    var offset = 0
    for (number, region) in memory.regions.enumerated() {
      table.group("region\(number)") {
        $0.write("start", region.start.value)
        $0.write("rom", region.kind == .rom)
        $0.write("count", region.count)
      }
      guard let view = try? memory.view(at: region.start, count: region.count) else {
        throw .invalidArgument
      }
      for start in stride(from: 0, to: view.count, by: piece) {
        let count = min(piece, view.count - start)
        let checksum = try write(view, start, count, to: file, at: offset + start)
        checksums.append(number: checksum)
      }
      offset += view.count
    }
    table.write("regions", UInt32(memory.regions.count))
    table.write("checksums", checksums)
    return table.bytes
  }

  private static let zeros = CRC32C.checksum(of: [UInt8](repeating: 0, count: piece)[...])

  /// Writes the pages of a piece that aren't zero, neighbours together, and returns its checksum.
  private static func write(
    _ view: MemoryView, _ start: Int, _ count: Int, to file: borrowing FileDescriptor,
    at offset: Int
  ) throws(Errno) -> UInt32 {
    if count == piece && view.isZero(from: start, count: count) { return zeros }
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    view.copy(to: &span, from: start)
    let page = Int(GuestMemory.pageSize)
    var first = 0
    while first < count {
      var end = first
      while end < count, !view.isZero(from: start + end, count: page) { end += page }
      if end > first {
        try file.writeAll(bytes.span.extracting(first..<end), at: offset + first)
      }
      first = max(end, first + page)
    }
    return CRC32C.checksum(of: bytes[...])
  }

  // MARK: Reading

  /// The memory in `file`, as `table` says, which may be anybody's.
  init(_ table: StateReader, _ file: SharedDescriptor) throws(StateError) {
    var regions: [Region] = []
    var offset: UInt64 = 0
    let count = try table.read("regions", in: 1...UInt32(Self.mostRegions))
    for number in 0..<count {
      let fields = try table.group("region\(number)")
      let isROM = try fields.readFlag("rom")
      let size = try fields.read("count", in: GuestMemory.pageSize...GuestMemory.largestSize)
      guard size % GuestMemory.pageSize == 0 else { throw .impossible("count") }
      let start = GuestAddress(try fields.read("start"))
      guard start.advanced(by: size) != nil else { throw .impossible("start") }
      regions.append(Region(start: start, kind: isROM ? .rom : .ram, count: size, offset: offset))
      offset += size
    }
    let pieces = regions.reduce(0) { $0 + (Int($1.count) + Self.piece - 1) / Self.piece }
    let bytes = try table.readBytes("checksums", count: pieces * 4)
    checksums = stride(from: 0, to: bytes.count, by: 4).map { bytes.number(at: $0) }
    self.regions = regions
    self.file = file
  }

  /// Looks whether the file's bytes are those that were written; this reads all that isn't a hole.
  /// `progress` gets how many of all bytes were looked at.
  package func verify(
    progress: (_ done: UInt64, _ all: UInt64) -> Void = { _, _ in }
  ) throws(RestoreError) {
    let all = regions.reduce(0) { $0 + $1.count }
    var known = FileDescriptor.Extent.data(until: 0)
    var number = 0
    for region in regions {
      for start in stride(from: 0, to: region.count, by: Self.piece) {
        let count = min(Self.piece, Int(region.count - start))
        let place = region.offset + start
        progress(place, all)
        if known.end <= place { known = file.file.extent(at: place, length: all) }
        let isHole = if case .hole(let end) = known { end - place >= Self.piece } else { false }
        let found =
          isHole && count == Self.piece ? Self.zeros : try checksum(of: count, at: Int(place))
        guard found == checksums[number] else {
          throw .damagedMemory(GuestAddress(region.start.value + start))
        }
        number += 1
      }
    }
  }

  /// That of `count` bytes of the file; nil if they aren't all there.
  private func checksum(of count: Int, at place: Int) throws(RestoreError) -> UInt32? {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    do throws(Errno) {
      guard try file.file.readAll(into: &span, at: place) == count else { return nil }
    } catch { throw .file(error) }
    return CRC32C.checksum(of: bytes[...])
  }

  /// Memory that begins with these contents. What other processes are to have is copied.
  func makeMemory(isShareable: Bool) throws(RestoreError) -> GuestMemory {
    var made: [GuestMemory.Region] = []
    for region in regions {
      do throws(Errno) {
        let view = try Mapping(
          privateViewOf: file.file, offset: Int(region.offset), count: Int(region.count))
        let mapping = isShareable ? try Self.shareable(view) : view
        made.append(.init(start: region.start, kind: region.kind, mapping: mapping))
      } catch {
        if error == .invalidArgument { throw .damagedMemory(region.start) }
        throw .file(error)
      }
    }
    guard let memory = GuestMemory(regions: made), Self.isRAM(memory) else { throw .memory }
    return memory
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
