/// The notes of an ELF file, by which a kernel says what it is and how it wants to be started.
///
/// A note is three words (lengths of owner and description, type) and the two, each padded to a
/// multiple of 4 (figure 5-7).
extension ELF {
  /// XEN_ELFNOTE_PHYS32_ENTRY: where a PVH loader enters the kernel (Xen, public/elfnote.h).
  static let pvhEntryNote: UInt32 = 18
  /// How much of a note segment is looked through: a kernel's have a few hundred bytes.
  private static let mostNoteBytes: UInt64 = 64 << 10

  /// The description of the first note that has this owner, and this type if one is given; empty
  /// where the note is cut short.
  func note(owner: String, type: UInt32? = nil, in image: Image) -> ArraySlice<UInt8>? {
    let owner = Array(owner.utf8) + [0]
    for header in programHeaders where header.kind == ProgramHeader.Kind.note {
      let size = min(header.fileSize, Self.mostNoteBytes)
      guard let notes = image.slice(header.offset, count: size) else { continue }
      if let found = Self.note(owner, type, in: image, notes.indices) { return found }
    }
    return nil
  }

  private static func note(
    _ owner: [UInt8], _ type: UInt32?, in image: Image, _ range: Range<Int>
  ) -> ArraySlice<UInt8>? {
    var position = range.lowerBound
    while position + 12 <= range.upperBound,
      let ownerSize = image.load(position, as: UInt32.self),
      let descriptionSize = image.load(position + 4, as: UInt32.self),
      let noteType = image.load(position + 8, as: UInt32.self)
    {
      // Two lengths of 32 bits can't take an Int of 64 past its end.
      let description = position + 12 + (Int(ownerSize) + 3) & ~3
      if ownerSize == owner.count, type == nil || type == noteType,
        image.has(owner, at: position + 12)
      {
        return image.slice(UInt64(description), count: UInt64(descriptionSize)) ?? []
      }
      position = description + (Int(descriptionSize) + 3) & ~3
    }
    return nil
  }
}
