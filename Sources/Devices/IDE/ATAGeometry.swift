/// Cylinders, heads and sectors: how drives were addressed before LBA, and still can be.
struct ATAGeometry: Equatable {
  var cylinders: UInt32
  var heads: UInt32
  var sectorsPerTrack: UInt32

  /// How many sectors can be reached by it.
  var sectorCount: UInt64 { UInt64(cylinders) * UInt64(heads) * UInt64(sectorsPerTrack) }

  /// The geometry that a disk of so many sectors has by default: 16 heads, 63 sectors, and no more
  /// cylinders than 16383, which says that there is more (ATA/ATAPI-5, 6.2.1 and annex B).
  init(sectors: UInt64) {
    heads = 16
    sectorsPerTrack = 63
    cylinders = UInt32(min(sectors / (16 * 63), 16383))
    guard cylinders == 0 else { return }
    // A disk of less than a cylinder has one, with as many of its tracks as there are.
    cylinders = 1
    heads = UInt32(max(sectors / 63, 1))
    if sectors < 63 { sectorsPerTrack = UInt32(max(sectors, 1)) }
  }

  /// What INITIALIZE DEVICE PARAMETERS makes of a disk of so many sectors; nil for a track of none.
  init?(heads: UInt32, sectorsPerTrack: UInt32, sectors: UInt64) {
    guard sectorsPerTrack > 0, heads > 0 else { return nil }
    self.heads = heads
    self.sectorsPerTrack = sectorsPerTrack
    cylinders = UInt32(min(sectors / UInt64(heads * sectorsPerTrack), 65535))
  }

  /// The LBA of a sector; nil where there is none of that address.
  func lba(cylinder: UInt32, head: UInt32, sector: UInt32) -> UInt64? {
    guard head < heads, sector >= 1, sector <= sectorsPerTrack, cylinder < cylinders else {
      return nil
    }
    return (UInt64(cylinder) * UInt64(heads) + UInt64(head)) * UInt64(sectorsPerTrack)
      + UInt64(sector - 1)
  }

  /// The address of the sector at `lba`, whose cylinder may be one that there isn't.
  func address(of lba: UInt64) -> (cylinder: UInt32, head: UInt32, sector: UInt32) {
    let track = lba / UInt64(sectorsPerTrack)
    return (
      UInt32(truncatingIfNeeded: track / UInt64(heads)),
      UInt32(truncatingIfNeeded: track % UInt64(heads)),
      UInt32(truncatingIfNeeded: lba % UInt64(sectorsPerTrack)) + 1
    )
  }
}
