import Devices
import Memory

/// How a guest's memory lies in its file: its regions one behind the other, by rising address; and what is
/// in it, by checksums.
struct SavedMemoryTable: Sendable, Equatable {
  struct Region: Sendable, Equatable {
    let start: GuestAddress
    let isROM: Bool
    let count: UInt64
    /// Where it is in the file.
    let offset: UInt64

    /// Its bytes in the file.
    var range: Range<Int> { Int(offset)..<Int(offset + count) }
  }

  let regions: [Region]
  /// The CRC-32C of each `piece` of a region.
  let checksums: [UInt32]

  /// Bytes that have a checksum of their own: they are looked at, and written, as one.
  static let piece = 64 << 10
  /// A machine has RAM below and above the hole, and few ROMs.
  private static let mostRegions = 16

  /// That of `memory`, without checksums.
  static func regions(of memory: GuestMemory) -> [Region] {
    var offset: UInt64 = 0
    return memory.regions.map { region in
      defer { offset += region.count }
      return Region(
        start: region.start, isROM: region.kind == .rom, count: region.count, offset: offset)
    }
  }

  init(_ regions: [Region], _ checksums: [UInt32]) {
    (self.regions, self.checksums) = (regions, checksums)
  }

  /// What the section `memory` says, which may be anybody's.
  init(_ state: StateReader) throws(StateError) {
    var regions: [Region] = []
    var offset: UInt64 = 0
    var next: UInt64 = 0
    for number in 0..<(try state.read("regions", in: 1...UInt32(Self.mostRegions))) {
      let fields = try state.group("region\(number)")
      let isROM = try fields.readFlag("rom")
      let size = try fields.read("count", in: GuestMemory.pageSize...GuestMemory.largestSize)
      guard size % GuestMemory.pageSize == 0 else { throw .impossible("count") }
      let start = GuestAddress(try fields.read("start"))
      guard start.value >= next, let end = start.advanced(by: size) else {
        throw .impossible("start")
      }
      next = end.value
      regions.append(Region(start: start, isROM: isROM, count: size, offset: offset))
      offset += size
    }
    self.regions = regions
    let pieces = regions.reduce(0) { $0 + (Int($1.count) + Self.piece - 1) / Self.piece }
    let bytes = try state.readBytes("checksums", count: pieces * 4)
    checksums = stride(from: 0, to: bytes.count, by: 4).map { bytes.number(at: $0) }
  }

  /// The section's bytes.
  var bytes: [UInt8] {
    var state = StateWriter()
    for (number, region) in regions.enumerated() {
      state.group("region\(number)") {
        $0.write("start", region.start.value)
        $0.write("rom", region.isROM)
        $0.write("count", region.count)
      }
    }
    var checksums: [UInt8] = []
    for checksum in self.checksums { checksums.append(number: checksum) }
    state.write("regions", UInt32(regions.count))
    state.write("checksums", checksums)
    return state.bytes
  }

  /// How long the file is.
  var byteCount: UInt64 { regions.reduce(0) { $0 + $1.count } }
  var pageCount: Int { Int(byteCount / GuestMemory.pageSize) }

  /// All pieces, each with the region that it is of and its place in the file.
  func forEachPiece<Failure: Error>(
    _ body: (_ number: Int, _ region: Region, _ place: Range<Int>) throws(Failure) -> Void
  ) throws(Failure) {
    var number = 0
    for region in regions {
      for start in stride(
        from: region.range.lowerBound, to: region.range.upperBound, by: Self.piece)
      {
        try body(number, region, start..<min(start + Self.piece, region.range.upperBound))
        number += 1
      }
    }
  }
}
