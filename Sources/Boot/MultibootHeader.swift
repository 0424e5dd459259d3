import Host

/// The header by which an image asks for a Multiboot loader.
struct MultibootHeader {
  /// Where the header is in the image.
  let offset: Int
  /// What the image asks for.
  let flags: UInt32

  /// Bits of the flags (Multiboot 0.6.96, 3.1.2). A loader that lacks one of the low 16 must refuse.
  enum Flag {
    static let alignedModules: UInt32 = 1 << 0
    static let memoryInformation: UInt32 = 1 << 1
    static let videoMode: UInt32 = 1 << 2
    static let required: UInt32 = 0xFFFF
    static let addresses: UInt32 = 1 << 16
  }

  /// Whether the header itself says where the image goes, whatever its format.
  var hasAddresses: Bool { flags & Flag.addresses != 0 }

  /// The header of `image`: 0.6.96, 3.1: in the first 8192 bytes, aligned to 4, three words with the
  /// sum 0. Nil if there is none.
  init?(in image: Image) {
    let found = Self.offset(
      magic: 0x1BAD_B002, words: 3, alignment: 4, within: 8192, in: image)
    guard let found else { return nil }
    offset = found
    flags = image.load(found + 4, as: UInt32.self) ?? 0
  }

  /// Refuses an image for a loader of Multiboot2 (2.0, 3.1): its header is in the first 32768 bytes,
  /// aligned to 8, four words with the sum 0.
  static func refuseVersion2(_ image: Image) throws(BootError) {
    let header = offset(magic: 0xE852_50D6, words: 4, alignment: 8, within: 32768, in: image)
    guard header != nil else { return }
    throw image.error(
      .unsupported,
      "has a Multiboot2 header, which kvmlite doesn't boot: build it with one of version 1"
        + (image.has(ELF.magic) ? ", or without, to start at its ELF entry point" : ""))
  }

  private static func offset(
    magic: UInt32, words: Int, alignment: Int, within limit: Int, in image: Image
  ) -> Int? {
    let end = min(limit, image.bytes.count) - words * 4
    for offset in stride(from: 0, through: end, by: alignment)
    where image.load(offset, as: UInt32.self) == magic {
      let header = (0..<words).compactMap { image.load(offset + $0 * 4, as: UInt32.self) }
      if header.reduce(0, &+) == 0 { return offset }
    }
    return nil
  }

  /// Refuses an image that asks for what kvmlite hasn't.
  func requireKnownFlags(_ image: Image) throws(BootError) {
    guard flags & Flag.videoMode == 0 else {
      throw image.error(
        .unsupported,
        about:
          "its Multiboot header asks for a video mode (flag 2), and kvmlite has no screen: build "
          + "it for a serial console, without that flag")
    }
    let known = Flag.alignedModules | Flag.memoryInformation
    let unknown = flags & Flag.required & ~known
    guard unknown == 0 else {
      throw image.error(
        .unsupported,
        about: "its Multiboot header asks for what no loader of version 1 has (flags "
          + "\(hex(unknown))): build it without")
    }
  }
}

/// Where an image goes that isn't ELF, or doesn't want to be read as such (Multiboot 0.6.96, 3.1.3).
struct MultibootAddresses {
  let load: UInt64
  /// What is loaded: a part of the file.
  let contents: ArraySlice<UInt8>
  /// How much memory that takes with the zeros behind it.
  let size: UInt64
  let entry: UInt64

  /// Reads the address fields of `header`.
  init(_ header: MultibootHeader, in image: Image) throws(BootError) {
    let fields = (3..<8).map {
      image.load(header.offset + $0 * 4, as: UInt32.self).map(UInt64.init)
    }
    guard let place = fields[0], let load = fields[1], let loadEnd = fields[2],
      let bssEnd = fields[3], let entry = fields[4]
    else {
      throw Self.lie(image, "ends within its Multiboot header: it has \(image.count) bytes")
    }
    // The header is in the file as far from the first byte loaded as it will be in memory.
    guard place >= load, place - load <= UInt64(header.offset) else {
      throw Self.lie(
        image,
        "says it is loaded at \(hex(load)) (load_addr) with its header, at \(header.offset) in "
          + "the file, at \(hex(place)) (header_addr), which would be before the file starts")
    }
    let start = UInt64(header.offset) - (place - load)
    let count = loadEnd == 0 ? image.count - start : loadEnd &- load
    guard loadEnd == 0 || loadEnd > load, let contents = image.slice(start, count: count) else {
      throw Self.lie(
        image,
        "says it is loaded from \(hex(load)) to \(hex(loadEnd)) (load_addr, load_end_addr), and "
          + "has \(image.count - start) bytes for that")
    }
    let end = max(load + count, bssEnd)
    guard bssEnd == 0 || bssEnd >= load + count, entry >= load, entry - load < count else {
      throw Self.lie(
        image,
        "says it is loaded from \(hex(load)) to \(hex(load + count)), zeroed to \(hex(bssEnd)) "
          + "(bss_end_addr) and entered at \(hex(entry)) (entry_addr), which contradict each other")
    }
    (self.load, self.contents, size, self.entry) = (load, contents, end - load, entry)
  }

  private static func lie(_ image: Image, _ predicate: String) -> BootError {
    image.error(.malformed, "\(predicate): the file is damaged; copy or build it again")
  }
}
