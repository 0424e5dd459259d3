import CLinux
import Glibc
import Host

/// Files read and written straight from guest memory, without a copy in between.
extension FileDescriptor {
  /// Fills `segments`, one after the other, with the file's bytes from `offset` on, and returns how
  /// many came: fewer than asked for only where the file ends. Goes on after signals and short
  /// reads. Corresponds to `preadv(2)`.
  public func read(into segments: [MemoryView], at offset: UInt64) throws(Errno) -> Int {
    try transfer(segments, offset, isWrite: false)
  }

  /// Writes the bytes of `segments`, one after the other, from `offset` on. Goes on after signals
  /// and short writes. Corresponds to `pwritev(2)`.
  public func write(from segments: [MemoryView], at offset: UInt64) throws(Errno) {
    _ = try transfer(segments, offset, isWrite: true)
  }

  private func transfer(
    _ segments: [MemoryView], _ offset: UInt64, isWrite: Bool
  ) throws(Errno) -> Int {
    var position = SegmentPosition()
    var total = 0
    position.skipEmpty(segments)
    while position.index < segments.count {
      let (place, overflow) = offset.addingReportingOverflow(UInt64(total))
      guard !overflow, let place = off_t(exactly: place) else { throw Errno.fileTooLarge }
      let count = transferSome(segments, from: position, at: place, isWrite: isWrite)
      if count > 0 {
        total += count
        position.advance(by: count, in: segments)
      } else if count == 0 {
        // The end of what is read. A write that makes no progress would be tried for ever.
        if isWrite { throw Errno.inputOutput }
        return total
      } else if count != -Int(EINTR) {
        throw Errno(Int32(-count))
      }
    }
    return total
  }

  /// One system call: how many bytes went, or an error number below zero.
  private func transferSome(
    _ segments: [MemoryView], from start: SegmentPosition, at offset: off_t, isWrite: Bool
  ) -> Int {
    // IOV_MAX of Linux: the most that one call takes.
    let capacity = min(segments.count - start.index, 1024)
    // Sound: the kernel is given addresses and lengths of ranges that are inside the views, and the
    // views keep their memory mapped until the call is over.
    return unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: capacity) { vector in
      for index in 0..<capacity {
        let segment = segments[start.index + index]
        let skipped = index == 0 ? start.skipped : 0
        let length = segment.count - skipped
        unsafe vector.initializeElement(
          at: index, to: iovec(iov_base: segment.pointer(skipped, length), iov_len: length))
      }
      let count =
        unsafe isWrite
        ? pwritev(number, vector.baseAddress, Int32(capacity), offset)
        : preadv(number, vector.baseAddress, Int32(capacity), offset)
      return count < 0 ? -Int(errno) : count
    }
  }
}

/// A place in a list of segments.
private struct SegmentPosition {
  var index = 0
  var skipped = 0

  mutating func advance(by count: Int, in segments: [MemoryView]) {
    skipped += count
    while index < segments.count, skipped >= segments[index].count {
      skipped -= segments[index].count
      index += 1
    }
  }

  mutating func skipEmpty(_ segments: [MemoryView]) { advance(by: 0, in: segments) }
}

extension MemoryView {
  /// All of `mapping`.
  public init(_ mapping: Mapping) { self.init(mapping, 0, mapping.count) }

  /// `count` bytes of zeros in memory that is nobody else's; at least 1.
  public init(scratch count: Int) throws(Errno) {
    let page = 4096
    guard count > 0, count < 1 << 40 else { throw Errno.invalidArgument }
    let mapping = try Mapping(anonymous: (count + page - 1) & ~(page - 1))
    self.init(mapping, 0, count)
  }

  /// The `count` bytes from `position` on; all of them are in the view.
  public func slice(_ position: Int, count: Int) -> MemoryView {
    precondition(
      position >= 0 && count >= 0 && count <= self.count && position <= self.count - count,
      "outside the view")
    return MemoryView(mapping, offset + position, count)
  }

  /// Makes `count` bytes from `position` on zeros.
  public func zero(_ position: Int, count: Int) {
    guard count > 0 else { return }
    // pointer() has checked the range.
    unsafe pointer(position, count).initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  /// Copies all of `source` to `position`. The two may be parts of the same memory.
  public func copy(from source: MemoryView, at position: Int) {
    guard source.count > 0 else { return }
    // pointer() has checked both ranges; copyMemory allows them to overlap.
    unsafe pointer(position, source.count)
      .copyMemory(from: source.pointer(0, source.count), byteCount: source.count)
  }
}

extension [MemoryView] {
  /// How many bytes all segments have together.
  public var byteCount: Int { reduce(0) { $0 &+ $1.count } }

  /// The `count` bytes from `position` on, as segments; all of them are in these.
  public func slice(_ position: Int, count: Int) -> [MemoryView] {
    var result: [MemoryView] = []
    var skip = position
    var left = count
    for segment in self where left > 0 {
      if skip >= segment.count {
        skip -= segment.count
      } else {
        let length = Swift.min(segment.count - skip, left)
        result.append(segment.slice(skip, count: length))
        left -= length
        skip = 0
      }
    }
    precondition(left == 0, "outside the segments")
    return result
  }

  /// Makes `count` bytes from `position` on zeros; all of them are in the segments.
  public func zero(_ position: Int, count: Int) {
    for segment in slice(position, count: count) { segment.zero(0, count: segment.count) }
  }
}

extension [MemoryView] {
  /// Copies all of `bytes` to `position`; there is room for them.
  public func copy(from bytes: Span<UInt8>, at position: Int) {
    var done = 0
    for segment in slice(position, count: bytes.count) {
      segment.copy(from: bytes.extracting(done..<done + segment.count), at: 0)
      done += segment.count
    }
  }
}
