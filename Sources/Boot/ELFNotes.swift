/// XEN_ELFNOTE_PHYS32_ENTRY: where a PVH loader enters the kernel (Xen, public/elfnote.h).
let pvhNoteType: UInt32 = 18

extension ELF {
  /// How much of a note segment is looked through: a kernel's have a few hundred bytes.
  private static let mostNoteBytes: UInt64 = 64 << 10

  /// Whether a note segment holds the note `type` of `owner`.
  func hasNote(owner: String, type: UInt32, in image: Image) -> Bool {
    programHeaders.contains { header in
      let size = min(header.fileSize, Self.mostNoteBytes)
      guard header.kind == ProgramHeader.Kind.note, image.slice(header.offset, count: size) != nil
      else { return false }
      return Self.hasNote(
        owner: Array(owner.utf8) + [0], type: type, in: image,
        Int(header.offset)..<Int(header.offset + size))
    }
  }

  /// Notes are three words (lengths of owner and description, type) and the two, each padded to a
  /// multiple of 4 (figure 5-7).
  private static func hasNote(
    owner: [UInt8], type: UInt32, in image: Image, _ range: Range<Int>
  ) -> Bool {
    var position = range.lowerBound
    while position + 12 <= range.upperBound,
      let ownerSize = image.load(position, as: UInt32.self),
      let descriptionSize = image.load(position + 4, as: UInt32.self)
    {
      if ownerSize == owner.count, image.load(position + 8, as: UInt32.self) == type,
        image.has(owner, at: position + 12)
      {
        return true
      }
      // Two lengths of 32 bits can't take an Int of 64 past its end.
      position += 12 + (Int(ownerSize) + 3) & ~3
      position += (Int(descriptionSize) + 3) & ~3
    }
    return false
  }
}
