import Host

/// The form in which a saved machine travels.
///
/// `kvmlite` and a zero; the form's number and the number of sections, 4 bytes each; the sections. A
/// section is the CRC-32C of all that follows in it (4 bytes), the length of its name (2) and the name in
/// UTF-8, its version (4), the length of its bytes (8) and these. Numbers are little-endian.
extension SavedMachine {
  private static let mark = Array("kvmlite\0".utf8)
  private static let form: UInt32 = 1
  /// A machine has fewer parts.
  private static let mostSections: UInt32 = 4096

  /// The machine as bytes.
  package var bytes: [UInt8] {
    var bytes = Self.mark
    bytes.append(number: Self.form)
    bytes.append(number: UInt32(sections.count))
    for section in sections {
      var body: [UInt8] = []
      let name = section.name.utf8.prefix(Int(UInt16.max))
      body.append(number: UInt16(name.count))
      body += name
      body.append(number: section.version)
      body.append(number: UInt64(section.bytes.count))
      body += section.bytes
      bytes.append(number: CRC32C.checksum(of: body.span))
      bytes += body
    }
    return bytes
  }

  /// The machine that `bytes` are, if they are one and nobody has changed them.
  package init(bytes: [UInt8]) throws(RestoreError) {
    guard bytes.starts(with: Self.mark) else { throw .notSaved }
    var cursor = Cursor(bytes: bytes, offset: Self.mark.count)
    let form: UInt32 = try cursor.number()
    guard form == Self.form else { throw .form(form) }
    let count: UInt32 = try cursor.number()
    guard count <= Self.mostSections else { throw .cut(offset: cursor.offset) }
    var sections: [Section] = []
    var names: Set<String> = []
    for _ in 0..<count {
      let section = try cursor.section()
      guard names.insert(section.name).inserted else { throw .twice(section: section.name) }
      sections.append(section)
    }
    guard cursor.offset == bytes.count else { throw .cut(offset: cursor.offset) }
    self.sections = sections
  }

  /// Where reading is, in bytes that may be anybody's.
  private struct Cursor {
    let bytes: [UInt8]
    var offset: Int

    mutating func take(_ count: Int) throws(RestoreError) -> ArraySlice<UInt8> {
      guard count <= bytes.count - offset else { throw .cut(offset: offset) }
      defer { offset += count }
      return bytes[offset..<offset + count]
    }

    mutating func number<T: FixedWidthInteger>() throws(RestoreError) -> T {
      try take(T.bitWidth / 8).number(at: 0)
    }

    mutating func section() throws(RestoreError) -> Section {
      let checksum: UInt32 = try number()
      let start = offset
      let nameCount: UInt16 = try number()
      let name = String(decoding: try take(Int(nameCount)), as: UTF8.self)
      let version: UInt32 = try number()
      let count: UInt64 = try number()
      guard let count = Int(exactly: count) else { throw .cut(offset: offset) }
      let content = Array(try take(count))
      guard CRC32C.checksum(of: bytes.span.extracting(start..<offset)) == checksum else {
        throw .damaged(section: name)
      }
      return Section(name: name, version: version, bytes: content)
    }
  }
}

extension [UInt8] {
  /// Appends a number in as many bytes as its type has.
  mutating func append(number: some FixedWidthInteger) {
    for shift in stride(from: 0, to: number.bitWidth, by: 8) {
      append(UInt8(truncatingIfNeeded: number >> shift))
    }
  }
}

extension RandomAccessCollection<UInt8> where Index == Int {
  /// The number whose bytes begin `offset` bytes behind the first; all of them are there.
  func number<T: FixedWidthInteger>(at offset: Int) -> T {
    let start = startIndex + offset
    return self[start..<start + T.bitWidth / 8].reversed().reduce(0) {
      $0 << 8 | T(truncatingIfNeeded: $1)
    }
  }
}
