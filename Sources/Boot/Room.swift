import Host

/// Finding room for what may go anywhere.
extension Placement {
  /// The lowest multiple of `alignment`, a power of two, where `size` bytes of RAM in `range` are
  /// free.
  func lowestRoom(for size: UInt64, alignment: UInt64, in range: Range<UInt64>) -> UInt64? {
    let starts = [range.lowerBound] + taken.map(\.range.upperBound)
    return starts.compactMap { $0.roundedUp(to: alignment) }.sorted()
      .first { isFree(from: $0, size: size, in: range) }
  }

  /// The highest such.
  func highestRoom(for size: UInt64, alignment: UInt64, in range: Range<UInt64>) -> UInt64? {
    let ends = [range.upperBound] + ram.ranges.map(\.upperBound) + taken.map(\.range.lowerBound)
    return ends.filter { $0 >= size }.map { ($0 - size) & ~(alignment - 1) }.sorted(by: >)
      .first { isFree(from: $0, size: size, in: range) }
  }

  private func isFree(from start: UInt64, size: UInt64, in range: Range<UInt64>) -> Bool {
    guard start >= range.lowerBound, start <= range.upperBound, size <= range.upperBound - start
    else { return false }
    let candidate = start..<start + size
    return ram.contains(candidate) && !taken.contains { $0.range.overlaps(candidate) }
  }

  /// Places `contents` where the layout has room for what a kernel is told, and says where.
  mutating func placeInformation(
    _ what: String, _ contents: [UInt8], alignment: UInt64 = 16
  ) throws(BootError) -> UInt64 {
    try placeInformation(what, size: contents.count, alignment: alignment) { _ in contents }
  }

  /// Does the same for `size` bytes that depend on where they go.
  mutating func placeInformation(
    _ what: String, size: Int, alignment: UInt64 = 16, _ contents: (UInt64) -> [UInt8]
  ) throws(BootError) -> UInt64 {
    let start = try roomForInformation(what, size: UInt64(size), alignment: alignment)
    try place(what, contents(start)[...], at: start)
    return start
  }

  /// Keeps a page for the first stack where the layout has room, and says where it starts: at the
  /// page's end.
  mutating func reserveStack() throws(BootError) -> UInt64 {
    let what = "the first stack"
    let start = try roomForInformation(what, size: 4096, alignment: 4096)
    try reserve(what, at: start, size: 4096)
    return start + 4096
  }

  private func roomForInformation(
    _ what: String, size: UInt64, alignment: UInt64
  ) throws(BootError) -> UInt64 {
    let range = layout.information.lowerBound.value..<layout.information.upperBound.value
    if let start = lowestRoom(for: size, alignment: alignment, in: range) { return start }
    throw image.error(
      .memory,
      about: "\(what) needs \(size) bytes between \(span(range)), and the guest's RAM has no such "
        + "room beside the image: give it \(.memory, "1M") or more, or link the image above 1 MiB")
  }
}

extension UInt64 {
  /// The next multiple of `alignment`, a power of two; nil where that would go past 2^64.
  func roundedUp(to alignment: UInt64) -> UInt64? {
    let (sum, overflows) = addingReportingOverflow(alignment - 1)
    return overflows ? nil : sum & ~(alignment - 1)
  }
}
