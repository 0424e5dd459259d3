import Host
import Memory

extension Placement {
  /// Places the initrds, if there are any, one after the other as Linux wants them.
  mutating func placeInitrd(
    _ request: BootRequest, below limit: UInt64
  ) throws(BootError) -> Range<UInt64>? {
    guard let file = try request.joinedInitrds() else { return nil }
    return try place(file, below: limit)
  }

  /// Places `file` as high as RAM below 4 GiB and `limit`, the highest address of its last byte,
  /// allow: the kernel's own memory starts low.
  mutating func place(_ file: BootFile, below limit: UInt64) throws(BootError) -> Range<UInt64> {
    guard file.arguments.isEmpty else {
      throw BootError(
        .options,
        "\(file.name): only modules of Multiboot kernels have arguments ('\(file.arguments)'), and "
          + "\(image.name) is none")
    }
    let size = try Self.size(of: file)
    let lowest = MemoryMap.legacyHole.upperBound
    let range = lowest..<max(lowest, min(limit + 1, GuestMemory.holeStart))
    let alignment = GuestMemory.pageSize
    guard let start = highestRoom(for: size, alignment: alignment, in: range) else {
      throw noRoom(for: file, size, in: range)
    }
    try place("the initrd", file.bytes[...], at: start)
    return start..<start + size
  }

  /// Places `file` behind all that is above 1 MiB, where Multiboot kernels look for modules.
  mutating func placeModule(_ file: BootFile) throws(BootError) -> Range<UInt64> {
    let size = try Self.size(of: file)
    let range = lowEnd..<GuestMemory.holeStart
    guard let start = lowestRoom(for: size, alignment: GuestMemory.pageSize, in: range) else {
      throw noRoom(for: file, size, in: range)
    }
    try place("the module", file.bytes[...], at: start)
    return start..<start + size
  }

  fileprivate static func size(of file: BootFile) throws(BootError) -> UInt64 {
    guard !file.bytes.isEmpty else {
      throw BootError(
        .malformed, "\(file.name) is empty: leave \(.initrds) out, or give a file with it")
    }
    return UInt64(file.bytes.count)
  }

  /// Where all that has been placed above 1 MiB and below the hole ends.
  private var lowEnd: UInt64 {
    let ends = taken.map(\.range.upperBound).filter { $0 <= GuestMemory.holeStart }
    return max(MemoryMap.legacyHole.upperBound, ends.max() ?? 0)
  }

  private func noRoom(for file: BootFile, _ size: UInt64, in range: Range<UInt64>) -> BootError {
    let page = GuestMemory.pageSize
    // Behind the kernel, with what rounding down to a page may cost.
    let start = lowEnd.roundedUp(to: page) ?? 0
    let needed = start..<start + (size.roundedUp(to: page) ?? size)
    let remedy: Advice =
      if needed.upperBound <= range.upperBound, let memory = RAM.size(holding: needed) {
        "it takes \(.memory, Boot.size(memory))"
      } else {
        "no \(.memory) changes that, for this kernel takes none above \(hex(range.upperBound)); make "
          + "it smaller"
      }
    return BootError(
      .memory,
      "\(file.name) has \(size) bytes, and beside \(image.name) there is no such room for it in the "
        + "guest's RAM (\(ram.ranges.map(span).joined(separator: " and "))): \(remedy)")
  }
}

extension BootRequest {
  /// All initrds as one, each from a boundary of 4 bytes on: between archives the kernel skips zeros
  /// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
  fileprivate func joinedInitrds() throws(BootError) -> BootFile? {
    guard let first = options.initrds.first, options.initrds.count > 1 else {
      return options.initrds.first
    }
    var bytes: [UInt8] = []
    for file in options.initrds {
      _ = try Placement.size(of: file)
      bytes += [UInt8](repeating: 0, count: -bytes.count & 3) + file.bytes
    }
    return BootFile(
      bytes, name: "\(first.name) with \(options.initrds.count - 1) more",
      arguments: options.initrds.map(\.arguments).max() ?? "")
  }
}
